"""A web server on this machine that cuts and refuses as it is told, and archives for it to send."""

import io
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving():
    """A server, whose `address` says where it is; `serve` has it send a body under a name (see `Resource`)."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *caller: None  # clients that hang up are part of the tests
        server.resources = {}
        server.serve = lambda name, body, **more: server.resources.setdefault(f"/{name}", Resource(body, **more))
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Resource:
    """What the server has at a path, and how it misbehaves.

    `cuts`: bytes after which it hangs up, a request each; `answers`: a status instead, a request each; `hold`: an event
    that it waits for before it ends an answer.
    """

    def __init__(self, body, *, cuts=(), answers=(), hold=None):
        self.body, self.cuts, self.answers, self.hold = body, list(cuts), list(answers), hold
        self.requests = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        resource = self.server.resources.get(self.path)
        if resource is None:
            return self.begin(404, 0)
        resource.requests += 1
        if resource.answers:
            return self.begin(resource.answers.pop(0), 0)
        self.begin(200, len(resource.body))
        if resource.cuts:
            self.close_connection = True
        self.wfile.write(resource.body[: resource.cuts.pop(0) if resource.cuts else None])
        if resource.hold:
            self.wfile.flush()
            resource.hold.wait(600)
        return None

    def begin(self, status, length):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def zipped(members: dict[str, bytes], **modes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = modes.get(name, 0o100644) << 16
            archive.writestr(info, body)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        for info in special:
            archive.addfile(info)
    return buffer.getvalue()

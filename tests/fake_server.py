"""A web server on this machine that cuts, lies and refuses as it is told, and archives for it to send."""

import io
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

BODY = np.random.default_rng(0).bytes(500_000)


@contextmanager
def serving():
    """A server; `resources` says what is at which path, `address` where it is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *caller: None  # clients that hang up are part of the tests
        server.resources = {}
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Resource:
    """What the server has at a path, and how it misbehaves.

    `cuts`: bytes after which it hangs up, a request each; `answers`: (status, headers) instead, a request each;
    `announce`: a Content-Length that is not true, or False for none.
    """

    def __init__(
        self, body=BODY, *, cuts=(), answers=(), ranges=True, etag='"1"', announce=None, kind="x/y", hold=None
    ):
        self.body, self.cuts, self.answers, self.ranges = body, list(cuts), list(answers), ranges
        self.etag, self.announce, self.kind, self.hold = etag, announce, kind, hold
        self.requests: list[str | None] = []
        self.sent = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        resource = self.server.resources.get(self.path)
        if resource is None:
            return self.begin(404, {"Content-Length": "0"})
        asked = self.headers.get("Range")
        resource.requests.append(asked)
        if resource.answers:
            status, headers = resource.answers.pop(0)
            return self.begin(status, {"Content-Length": "0", **headers})
        start = 0
        if asked and resource.ranges and self.headers.get("If-Range", resource.etag) == resource.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = resource.body[start:]
        length = len(body) if resource.announce is None else resource.announce
        headers = {"Content-Length": str(length), "ETag": resource.etag, "Content-Type": resource.kind}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(resource.body) - 1}/{len(resource.body)}"
        if resource.announce is False:
            del headers["Content-Length"]
            self.close_connection = True
        self.begin(206 if start else 200, headers)
        if resource.cuts:
            body = body[: resource.cuts.pop(0)]
            self.close_connection = True
        resource.sent += len(body)  # before the client can have it all and look
        self.wfile.write(body)
        if resource.hold:
            self.wfile.flush()
            resource.hold.wait(600)
        return None

    def begin(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
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

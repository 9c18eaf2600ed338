"""A stand-in for the server of Weights & Biases on this machine, which hangs, refuses and answers by halves as told."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECT = {"name": "lungdet", "entity": {"name": "clinic"}}
RUN = {"id": "cnVu", "name": "run", "displayName": "run", "project": PROJECT, "historyLineCount": None}
ANSWERS = {
    "UpsertBucket": {"upsertBucket": {"bucket": RUN, "inserted": True}},
    "Viewer": {"viewer": {"id": "me", "entity": "clinic", "username": "me", "flags": "{}", "teams": {"edges": []}}},
    "RunResumeStatus": {"model": {**PROJECT, "id": "p", "bucket": None}},
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
}


@contextmanager
def standing_in() -> Iterator["Server"]:
    """The server, well until `behaviour` is set."""
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


class Server(ThreadingHTTPServer):
    """Attributes: `operations`, by name what it was asked for; `history`, the rows it was sent; `behaviour`, below."""

    daemon_threads = True

    def __init__(self, *address: object) -> None:
        super().__init__(*address)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.operations: list[tuple[str, dict]] = []
        self.history: list[dict] = []
        self.behaviour: str | None = None  # hangs, refuses, halves
        self.released = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({})

    def do_PUT(self) -> None:
        self.body()
        self.answer({})

    def do_POST(self) -> None:
        body, server = self.body(), self.server
        if server.behaviour == "hangs":
            server.released.wait(600)
        elif server.behaviour == "refuses":
            self.answer({"errors": [{"message": "no"}]}, 403)
        elif server.behaviour == "halves":
            self.close_connection = True
            self.answer({"data": {}}, whole=False)
        elif self.path == "/graphql":
            self.answer(self.operation(json.loads(body)))
        else:
            if self.path.endswith("file_stream"):
                lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
                server.history += map(json.loads, lines)
            self.answer({"exitcode": None, "limits": {}})

    def operation(self, asked: dict) -> dict:
        name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
        variables = asked.get("variables") or {}
        self.server.operations.append((name, variables))
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.server.address}/file/{file}"} for file in variables["files"]]
            return {"data": {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}}
        return {"data": ANSWERS[name]} if name in ANSWERS else {"data": {}, "errors": [{"message": f"no {name}"}]}

    def body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def answer(self, values: dict, status: int = 200, whole: bool = True) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if whole else content[: len(content) // 2])

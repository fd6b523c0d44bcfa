"""Stands for W&B's server on this machine: accepts what `wandb sync` sends and remembers it."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Received:
    """What a server was sent.

    Attributes:
        url: of the server.
        runs: id → what the run was said to be: name, group, config.
        history: id → its lines.
        files: id/name → content.
        artifacts: what was said of them.
    """

    url: str
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def wandb_server() -> Iterator[Received]:
    """A server for the duration of a block."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.received = received = Received(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *arguments: Any) -> None: ...  # a client that hangs up is no news


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None: ...

    def do_POST(self) -> None:
        received: Received = self.server.received  # type: ignore[attr-defined]
        body, answer = self._body(), {}
        if self.path == "/graphql":
            asked = json.loads(body)
            answer = {"data": _answer(received, asked["query"], asked.get("variables") or {})}
        elif stream := re.fullmatch(r"/files/.*/([^/]+)/file_stream", self.path):
            lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {"content": []})["content"]
            received.history.setdefault(stream[1], []).extend(map(json.loads, lines))
        elif self.path.startswith("/upload/"):
            received.files[self.path.removeprefix("/upload/")] = body
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body


def _answer(received: Received, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """As much of W&B's GraphQL as a sync of offline runs needs."""
    if "upsertBucket" in query:
        run = received.runs.setdefault(variables["name"], {})
        run |= {key: value for key, value in variables.items() if value is not None}
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "someone"}}
        bucket = {"id": run["name"], "name": run["name"], "displayName": run.get("displayName"), "config": "{}"}
        return {"upsertBucket": {"bucket": {**bucket, "project": project, "historyLineCount": 0}, "inserted": True}}
    if "createRunFiles" in query:
        run_id = variables["run"]
        files = [{"name": name, "uploadUrl": f"{received.url}/upload/{run_id}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": run_id, "uploadHeaders": [], "files": files}}
    if "createArtifact(" in query:
        received.artifacts.append(variables.get("input") or variables)
        latest = {"id": "a", "versionIndex": 0}
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": latest}}
        return {"createArtifact": {"artifact": artifact}}
    return {"viewer": {"id": "u", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}}

"""A hub on this machine: lists and serves the files of one dataset as huggingface.co does, for huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """What is served and what was asked: ``datasets`` maps id to path to bytes; gated ones are refused."""

    def __init__(self, datasets: dict[str, dict[str, bytes]]) -> None:
        self.datasets = datasets
        self.gated: set[str] = set()
        self.broken: set[str] = set()
        self.cut: dict[str, int] = {}  # path -> bytes after which the connection breaks, once
        self.served: list[tuple[str, int]] = []  # path, first byte
        self.commits: list[str] = []
        self.address = ""


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            parts = unquote(urlparse(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "datasets"]:
                self.listing("/".join(parts[2:4]), parts[4], body)
            else:
                self.file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]), body)

        def listing(self, name: str, what: str, body: bool) -> None:
            if name not in hub.datasets:
                return self.reply(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
            if what == "revision":
                return self.reply(200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode(), body)
            hub.commits.append(unquote(urlparse(self.path).path).split("/")[-1])
            files = hub.datasets[name]
            tree = [{"type": "file", "path": p, "size": len(b), "oid": oid(b)} for p, b in files.items()]
            folders = {p.rpartition("/")[0] for p in files} - {""}
            tree += [{"type": "directory", "path": p, "oid": oid(p.encode())} for p in folders]
            self.reply(200, json.dumps(tree).encode(), body)

        def file(self, name: str, commit: str, path: str, body: bool) -> None:
            if name in hub.gated:
                return self.reply(403, b"", body, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
            if path in hub.broken:
                return self.reply(404, b"", body, {"X-Error-Code": "EntryNotFound"})
            data = hub.datasets[name][path]
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0] or 0)
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{oid(data)}"', "Accept-Ranges": "bytes"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if body:
                hub.served.append((path, start))
            cut = hub.cut.pop(path, None) if body else None
            self.reply(206 if start else 200, data[start:], body, headers, cut)

        def reply(
            self, status: int, data: bytes, body: bool, headers: dict | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()

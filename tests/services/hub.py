"""A Hugging Face Hub for reading models: enough of its HTTP interface for the unmodified `huggingface_hub` client.

Repositories are folders. Written from what the client asks and looks for; what else the Hub does is not here.
"""

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import unquote, urlsplit


@dataclass
class Fault:
    """Something that goes wrong with the next requests that match.

    Attributes:
        match: Searched in "GET /path".
        kind: `status` (answers `code`), `drop` (closes at once), `drop_after` (does it, and closes without an answer),
            `truncate` (closes after half the body), `delay`.
        times: How many requests it happens to.
    """

    match: str
    kind: str
    times: int = 1
    code: int = 500
    seconds: float = 0.0


@dataclass
class Repo:
    """A folder under a name, who may read it, and its one commit."""

    folder: Path
    gated: bool = False
    private: bool = False
    readers: frozenset[str] = frozenset()  # tokens that may
    commit: str = field(default="")

    def __post_init__(self) -> None:
        self.commit = hashlib.sha1(str(self.folder).encode(), usedforsecurity=False).hexdigest()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # more than five may knock at once; whom the system turns away knocks again after 1 s


class Hub:
    """The server. `log` holds "GET /path" of each request; `faults` are used up from the front."""

    def __init__(self, tokens: frozenset[str] = frozenset({"hf_known"})) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens = tokens
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self._server = _Server(("127.0.0.1", 0), self.handler())
        cast(Any, self._server).hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handler(self) -> type["_Handler"]:
        """Returns what answers; `stores.py` has one that can do more."""
        return _Handler

    def fetched(self) -> set[str]:
        """Returns the names of the files whose content was asked for."""
        return {line.rsplit("/", 1)[1] for line in self.log if line.startswith("GET") and "/resolve/" in line}

    def fault(self, request: str) -> Fault | None:
        """Returns what goes wrong with a request, if anything does."""
        for fault in self.faults:
            if fault.times and re.search(fault.match, request):
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes, and each would wait 40 ms for the other
    _mute = False

    @property
    def hub(self) -> Hub:
        return cast(Hub, cast(Any, self.server).hub)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the hub keeps its own log."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.log.append(request)
        fault = self.hub.fault(request)
        if fault and fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault and fault.kind == "status":
            self._say(fault.code, {"error": "as the test wants it"})
        elif fault and fault.kind == "drop":
            self.close_connection = True
        else:
            self._mute = bool(fault and fault.kind == "drop_after")
            self._answer(path, half=bool(fault and fault.kind == "truncate"))

    def _answer(self, path: str, *, half: bool) -> None:
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path)
        found = about or file or tree
        if not found:
            self._say(404, {"error": f"no route for {path}"})
        elif repo := self._allowed(found[1], found[2] or "main", content=bool(file)):
            if about:
                self._say(200, self._info(found[1], repo))
            elif tree:
                self._say(200, self._entries(repo))
            else:
                self._file(repo, cast(re.Match[str], file)[3], half=half)

    def _allowed(self, name: str, revision: str, *, content: bool) -> Repo | None:
        repo = self.hub.repos.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        known = token in self.hub.tokens
        if repo is None or (repo.private and token not in repo.readers):
            self._say(404 if known else 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif content and repo.gated and token not in repo.readers:
            self._say(403 if known else 401, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", repo.commit):
            self._say(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            return repo
        return None

    def _info(self, name: str, repo: Repo) -> dict[str, Any]:
        files = [
            {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]} for entry in self._entries(repo)
        ]
        return {"_id": name, "id": name, "modelId": name, "sha": repo.commit, "private": repo.private,
                "gated": "auto" if repo.gated else False, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
                "siblings": files}  # fmt: skip

    def _entries(self, repo: Repo) -> list[dict[str, Any]]:
        files = sorted(file for file in repo.folder.iterdir() if file.is_file())
        return [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file)[:40]}
            for file in files
        ]

    def _file(self, repo: Repo, name: str, *, half: bool) -> None:
        file = repo.folder / name
        if not file.is_file():
            self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        data, status = file.read_bytes(), 200
        headers = {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(found[1]), int(found[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        self._send(status, data, headers, half=half)

    def _say(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        error = {"X-Error-Message": str(answer["error"])} if "error" in answer else {}
        self._send(status, json.dumps(answer).encode(), {**(headers or {}), **error})

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, half: bool = False) -> None:
        if self._mute:
            self.close_connection = True
            return
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if half else data)
            if half:
                self.close_connection = True


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

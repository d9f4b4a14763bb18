"""The scheduler of ZeroGPU: enough of its HTTP interface for the unmodified `spaces` package.

Written from the client's source alone: what the real one decides, and when it takes a GPU back, is not known here.
"""

import json
import os
import signal
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit


@dataclass
class Answer:
    """How the next request for a GPU is answered.

    Attributes:
        kind: `lend`, `queue` (pings first, then `final`), `quota` (429 with `left` and `wait` seconds) or `status`.
        auth: How the caller is known: "", `regular` or `pro`.
    """

    kind: str = "lend"
    auth: str = ""
    left: int = 10
    wait: float = 3600
    approve: str = ""
    code: int = 503
    pings: int = 2
    final: str = "succeeded"  # `failed`, or `drop`: the connection ends


@dataclass
class Gpus:
    """The server, with one GPU. `log` holds each request as a dictionary with `what` it was."""

    log: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    worker: int = 0  # process that has the GPU
    lent: str = ""  # the token under which it is lent now
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        cast(Any, self._server).gpus = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def note(self, what: str, **values: Any) -> None:
        with self.lock:
            self.log.append({"what": what, **values})

    def said(self, what: str) -> list[dict[str, Any]]:
        """Returns the requests of one sort so far."""
        with self.lock:
            return [line for line in self.log if line["what"] == what]

    def lend(self) -> dict[str, Any] | None:
        """Lends the GPU if it is free; `idle` says that the worker of before is still there."""
        with self.lock:
            if self.lent:
                return None
            self.lent = uuid.uuid4().hex
            return {"idle": _alive(self.worker), "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": self.lent}

    def take_back(self) -> None:
        """Ends the worker that has the GPU, as happens when it is needed elsewhere."""
        os.kill(self.worker, signal.SIGKILL)
        with self.lock:
            self.lent = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def gpus(self) -> Gpus:
        return cast(Gpus, cast(Any, self.server).gpus)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(address.query).items()}
        gpus = self.gpus
        if address.path == "/schedule":
            self._schedule(asked)
            return
        gpus.note(address.path[1:], **asked)
        with gpus.lock:
            if address.path == "/allow":
                gpus.worker = int(asked["pid"])
            elif address.path == "/release" and gpus.lent == asked["allowToken"]:
                gpus.lent = ""
        self._say(200, {})

    def _schedule(self, asked: dict[str, str]) -> None:
        gpus = self.gpus
        with gpus.lock:
            answer = gpus.answers.pop(0) if gpus.answers else Answer()
        gpus.note("schedule", **asked)
        headers = {"X-Authenticated": answer.auth, "X-Approve-Result": answer.approve}
        headers = {key: value for key, value in headers.items() if value}
        if answer.kind == "status":
            self._say(answer.code, {}, headers)
        elif answer.kind == "quota":
            self._say(429, {"left": answer.left, "wait": answer.wait}, headers)
        elif answer.kind == "lend" and (lent := gpus.lend()):
            self._say(200, lent, headers)
        else:
            self._queue(answer, headers)

    def _queue(self, answer: Answer, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Type": "text/event-stream", "Connection": "close"}.items():
            self.send_header(key, value)
        self.end_headers()
        self.close_connection = True
        try:
            for _ in range(answer.pings if answer.kind == "queue" else 0):
                self._event("ping")
                time.sleep(0.2)
            if answer.final == "failed":
                self._event("failed")
            while answer.final == "succeeded":
                if lent := self.gpus.lend():
                    self._event("succeeded", lent)
                    return
                self._event("ping")
                time.sleep(0.2)
        except (BrokenPipeError, ConnectionResetError):
            self.gpus.note("left the queue")

    def _event(self, name: str, data: Any = None) -> None:
        line = f"\ndata: {json.dumps(data)}" if data else ""
        self.wfile.write(f"event: {name}{line}\n\n".encode())
        self.wfile.flush()

    def _say(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Type": "application/json"}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

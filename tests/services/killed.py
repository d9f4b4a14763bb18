"""Real processes that keep conversations until somebody kills them.

`python -m tests.services.killed` loads everything once, and forks a process for each job that it reads, so that two
hundred of them start in seconds. Each writes down the ids of what was acknowledged to it, and only then.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import uuid4

if TYPE_CHECKING:
    from history import Archive

ROOT = Path(__file__).parents[2]
PIECE_SECONDS = 0.002


@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        mode: `append` (short messages, as fast as they go) or `reply` (a message, and a reply that takes its time).
        acks: the file for what was acknowledged.
    """

    url: str
    journal: str
    endpoint: str
    owner: str
    conversation: str
    mode: str
    acks: str


class Killable:
    """The process that forks the others."""

    def __init__(self, salt: str, token: str) -> None:
        environment = {**os.environ, "HISTORY_SALT": salt, "HF_TOKEN": token, "HISTORY_COMMIT_SECONDS": "0",
                       "PYTHONPATH": str(ROOT)}  # fmt: skip
        command = [sys.executable, "-m", "tests.services.killed"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)

    def start(self, job: Job) -> int:
        """Starts one and returns its process id."""
        assert self._process.stdin and self._process.stdout
        with self._lock:
            print(json.dumps(asdict(job)), file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())


def gone(pid: int, seconds: float) -> bool:
    """Waits until a process has ended."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def work(job: Job) -> None:
    """Keeps one conversation for ever."""
    import huggingface_hub.constants  # noqa: PLC0415 - loaded already, by `main`

    from config import Settings  # noqa: PLC0415
    from history import Archive  # noqa: PLC0415
    from history.stores import buckets  # noqa: PLC0415

    huggingface_hub.constants.ENDPOINT = job.endpoint
    buckets.PACE_SECONDS, buckets.SETTLE_SECONDS = 0.0, 0.3
    archive = Archive(Settings(history_url=job.url, history_journal=Path(job.journal)))
    with archive.serving(20):
        _keep_talking(archive, job)


def _keep_talking(archive: "Archive", job: Job) -> None:
    from history import Message  # noqa: PLC0415

    acks = os.open(job.acks, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(acks, f"{archive._journal._own.path.name}\n".encode())
    messages: list[Message] = []

    def keep(message: Message) -> None:
        messages.append(message)
        if archive.record(job.owner, job.conversation, None, messages):
            os.write(acks, f"{message.id}\n".encode())
        else:
            time.sleep(0.01)  # it is ending

    while not archive.consented(job.owner):
        time.sleep(0.01)
    for turn in range(100_000):
        keep(Message("user", f"{turn} " + "palabra " * 20))
        if job.mode == "reply":
            reply = ""
            for piece in range(10):
                reply += f"{piece} "
                time.sleep(PIECE_SECONDS)
            keep(Message("assistant", reply, finish="stop"))


def main() -> None:
    import alembic.command  # noqa: F401, PLC0415
    import hf_xet  # type: ignore[import-untyped]  # noqa: F401, PLC0415
    import psycopg  # noqa: F401, PLC0415

    import config  # noqa: F401, PLC0415
    import history.stores.datasets  # noqa: PLC0415
    import history.stores.sql  # noqa: F401, PLC0415

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        job = Job(**json.loads(line))
        if not (pid := os.fork()):
            signal.alarm(60)  # whoever is forgotten ends all the same
            os.close(0)
            os.dup2(2, 1)
            work(job)
            os._exit(1)
        print(pid, flush=True)


def new_job(url: str, folder: Path, endpoint: str, owner: str, mode: str) -> Job:
    """Returns a job with a new conversation."""
    id = uuid4().hex
    (folder / "acks").mkdir(exist_ok=True)
    return Job(url, str(folder / "journal"), endpoint, owner, id, mode, str(folder / "acks" / id))


if __name__ == "__main__":
    main()

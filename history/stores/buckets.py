"""Documents in a private storage bucket of the Hub: one JSON file each, overwritten in place, without a history.

What is deleted is gone at once. A bucket has no locks, so two processes that write one conversation in the same
moment can overwrite each other. Versions are compared right before a write, and a while after it (`settle`) the mover
looks whether what it wrote is still there, and writes it again if not; no write is on its way for longer than that.
"""

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from huggingface_hub import BucketFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from history.documents import OWNER
from history.stores import AwayError, Change, ConflictError, Remains, Stored
from history.stores.hub import FOLDER, WORK_SECONDS, hub_api, look, place, within

PACE_SECONDS = 2.0  # what several people say in this time is one request
SETTLE_SECONDS = 1.5 * WORK_SECONDS


class BucketStore:
    """A bucket. See `Store`.

    Raises:
        SystemExit: it is public, or not there for this token.
    """

    remains: Remains = "nothing"

    def __init__(self, name: str, token: str, *, endpoint: str | None = None) -> None:
        self.pace, self.settle = PACE_SECONDS, SETTLE_SECONDS
        self._name = name
        self._api = hub_api(token, endpoint)
        disable_progress_bars()
        look(self._private, f"the bucket {name}")

    def load(self, owner: str, ids: Collection[str] | None = None) -> dict[str, Stored]:
        return within(WORK_SECONDS, lambda: self._load(owner, ids))

    def append(self, changes: Sequence[Change]) -> None:
        within(WORK_SECONDS, lambda: self._append(changes))

    def delete(self, owner: str, ids: Collection[str] | None = None) -> None:
        within(WORK_SECONDS, lambda: self._delete(owner, ids))

    def left(self, owner: str, ids: Collection[str] | None = None) -> list[str]:
        return within(WORK_SECONDS, lambda: [file.path for file in self._files(owner, ids)])

    def owners(self) -> list[str]:
        return within(WORK_SECONDS, self._owners)

    def describe(self) -> str:
        private = within(WORK_SECONDS, self._private)
        return f"bucket {self._name}, {'private' if private else 'PUBLIC: nothing will be written'}"

    def close(self) -> None:
        """Nothing to let go: the client is the process's own."""

    def _private(self) -> bool:
        return bool(self._api.bucket_info(self._name).private)

    def _files(self, owner: str, ids: Collection[str] | None) -> list[BucketFile]:
        if ids is not None:
            return list(self._api.get_bucket_paths_info(self._name, [place(owner, id) for id in ids]))
        tree = self._api.list_bucket_tree(self._name, f"{place(owner)}/", recursive=True)
        return [file for file in tree if isinstance(file, BucketFile) and file.path.endswith(".json")]

    def _load(self, owner: str, ids: Collection[str] | None) -> dict[str, Stored]:
        files = self._files(owner, ids)
        with tempfile.TemporaryDirectory() as folder:  # the library downloads to files alone
            local = {file.path: Path(folder, str(number)) for number, file in enumerate(files)}
            self._api.download_bucket_files(self._name, [(file, local[file.path]) for file in files])
            return {Path(f.path).stem: Stored(local[f.path].read_text("utf-8"), f.xet_hash) for f in files}

    def _append(self, changes: Sequence[Change]) -> None:
        if not self._private():
            raise AwayError(f"the bucket {self._name} is public, and nothing is written to it")
        self._compare(changes)
        paths = {place(change.owner, change.id): change for change in changes if not change.same}
        add: list[tuple[str | Path | bytes, str]] = [
            (change.text.encode(), path) for path, change in paths.items() if change.text is not None
        ]
        delete = [path for path, change in paths.items() if change.text is None and change.version]
        if add or delete:
            self._api.batch_bucket_files(self._name, add=add, delete=delete)
        # A consent that was withdrawn meanwhile: either its deletion sees this write, or this sees the deletion.
        self._compare([change for change in changes if change.same])

    def _compare(self, changes: Sequence[Change]) -> None:
        paths = {place(change.owner, change.id): change for change in changes}
        there = {file.path: file.xet_hash for file in self._api.get_bucket_paths_info(self._name, list(paths))}
        if any(change.version != there.get(path, "") for path, change in paths.items()):
            raise ConflictError("a file has changed")

    def _delete(self, owner: str, ids: Collection[str] | None) -> None:
        if gone := [file.path for file in self._files(owner, ids)]:
            self._api.batch_bucket_files(self._name, delete=gone)

    def _owners(self) -> list[str]:
        tree = self._api.list_bucket_tree(self._name, f"{FOLDER}/", recursive=True)
        names = {file.path.split("/")[1] for file in tree if file.path.count("/") >= 2}
        return sorted(name for name in names if OWNER.fullmatch(name))

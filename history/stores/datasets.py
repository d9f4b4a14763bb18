"""Documents in a private dataset repository of the Hub: one JSON file each, in commits that are far apart.

A commit is made only on top of the revision that was looked at (`parent_commit`), so that two processes cannot
overwrite each other. Deleting removes the file, then the history (`super_squash_history`) and large-file objects;
`left` reads every revision that a branch, tag or pull request leads to. The old revisions themselves lie on the Hub
until it collects them, which it says takes up to 36 hours.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_session
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from huggingface_hub.hf_api import DatasetInfo, RepoFile, RepoFolder
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import hf_raise_for_status

from history.documents import OWNER
from history.stores import AwayError, Change, ConflictError, Remains, Stored
from history.stores.hub import FOLDER, WORK_SECONDS, hub_api, log, look, place, told, within

READERS = 8  # files that are fetched at once
KEPT = 500  # files that are not fetched again while they stay as they are
TRIES = 5  # to read files while others change them
PATHS = 500  # that are asked about in one call
CARD = """---
license: other
viewer: false
pretty_name: Conversations kept with consent
configs:
- config_name: default
  data_files: "v1/*/[0-9a-f]*.json"
dataset_info:
  features:
  - {name: schema, dtype: string}
  - {name: id, dtype: string}
  - {name: title, dtype: string}
  - {name: created, dtype: string}
  - {name: updated, dtype: string}
  - name: messages
    list:
    - {name: role, dtype: string}
    - {name: text, dtype: string}
    - {name: time, dtype: string}
    - {name: finish, dtype: string}
    - {name: aside, dtype: string}
    - {name: id, dtype: string}
  - name: ratings
    list:
    - {name: message, dtype: string}
    - {name: up, dtype: bool}
    - {name: word, dtype: string}
    - {name: time, dtype: string}
  - name: applied
    list:
    - {name: journal, dtype: string}
    - {name: seq, dtype: int64}
---

# Conversations kept with consent

**Private, and to be kept so.** Conversations of an emotional-support chat with an artificial intelligence, from people
who agreed that they are kept so that they find them again. They did not agree to their publication.

- `v1/<person>/<conversation>.json` is one conversation: messages oldest first, with how each reply ended (`finish`),
  what stood above it (`aside`), and the person's thumbs (`ratings`). `<person>` is a keyed hash that names nobody.
- `v1/<person>/person.json` is that person's consent: when, and to which version of the words.
- `applied` is bookkeeping: which entries of which journal a file has seen, so that none is applied twice.
- Texts that begin with `\\u0002fernet:` are encrypted; the server's operator holds the key.

`datasets.load_dataset("OWNER/NAME")` opens the conversations. A person can withdraw at any time: files are deleted and
the history is squashed. **So copy nothing out of here that you could not delete as well.** For research there is
`python -m history export --pseudonymise`, which names its limits.
"""


class DatasetStore:
    """A dataset repository. See `Store`.

    Args:
        name: `OWNER/NAME`.
        pace: least seconds between two commits; the Hub allows about 128 an hour.

    Raises:
        SystemExit: it is public, or not there for this token.
    """

    settle = 0.0
    remains: Remains = "collection"

    def __init__(self, name: str, token: str, *, pace: float = 300.0, endpoint: str | None = None) -> None:
        self.pace = pace
        self._name = name
        self._api = hub_api(token, endpoint)
        self._kept: OrderedDict[str, Stored] = OrderedDict()
        look(self._private, f"the dataset {name}")

    def load(self, owner: str, ids: Collection[str] | None = None) -> dict[str, Stored]:
        return within(WORK_SECONDS, lambda: self._load(owner, ids))

    def append(self, changes: Sequence[Change]) -> None:
        within(WORK_SECONDS, lambda: self._append(changes))

    def delete(self, owner: str, ids: Collection[str] | None = None) -> None:
        within(WORK_SECONDS, lambda: self._delete(owner, ids))

    def left(self, owner: str, ids: Collection[str] | None = None) -> list[str]:
        return within(WORK_SECONDS, lambda: self._left(owner, ids))

    def owners(self) -> list[str]:
        return within(WORK_SECONDS, self._owners)

    def describe(self) -> str:
        private = within(WORK_SECONDS, self._private)
        return f"dataset {self._name}, {'private' if private else 'PUBLIC: nothing will be written'}"

    def close(self) -> None:
        """Nothing to let go: the client is the process's own."""

    def _private(self) -> bool:
        return bool(self._info().private)

    def _info(self) -> DatasetInfo:
        """Returns whether it is private and its newest commit, and not the names of all its files."""
        return self._api.dataset_info(self._name, expand=["private", "sha"])

    def _load(self, owner: str, ids: Collection[str] | None) -> dict[str, Stored]:
        for _ in range(TRIES):
            if ids is None:
                files = self._files(place(owner))
            else:
                files = list(self._infos([place(owner, id) for id in ids]).values())
            with ThreadPoolExecutor(READERS) as pool:
                found = list(pool.map(self._read, files))
            if None not in found:
                break
        else:
            raise AwayError("files are changed while they are read")
        return {
            file.path.rsplit("/", 1)[1][: -len(".json")]: text for file, text in zip(files, found, strict=True) if text
        }

    def _files(self, folder: str, revision: str | None = None) -> list[RepoFile]:
        """Returns the files of one folder."""
        try:
            tree = list(self._api.list_repo_tree(self._name, folder, revision=revision, repo_type="dataset"))
        except EntryNotFoundError:
            return []
        return [file for file in tree if isinstance(file, RepoFile) and file.path.endswith(".json")]

    def _infos(self, paths: Sequence[str], revision: str | None = None) -> dict[str, RepoFile]:
        found: dict[str, RepoFile] = {}
        for start in range(0, len(paths), PATHS):
            part = list(paths[start : start + PATHS])
            for info in self._api.get_paths_info(self._name, part, revision=revision, repo_type="dataset"):
                if isinstance(info, RepoFile):
                    found[info.path] = info
        return found

    def _read(self, file: RepoFile) -> Stored | None:
        """Returns one file, or None when it has changed since it was listed.

        It is fetched into memory alone: the library's cache would keep words on this disk.
        """
        kept = self._kept.get(file.path)
        if kept and kept.version == file.blob_id:
            return kept
        with told():
            address = f"{self._api.endpoint}/datasets/{self._name}/resolve/main/{file.path}"
            answer = get_session().get(address, headers=build_hf_headers(token=self._api.token))
            hf_raise_for_status(answer)
            data = answer.content
            if not _is(file, data):
                return None
            stored = Stored(data.decode("utf-8"), file.blob_id)
        self._kept[file.path] = stored
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return stored

    def _append(self, changes: Sequence[Change]) -> None:
        info = self._info()
        if not info.private:
            raise AwayError(f"the dataset {self._name} is public, and nothing is written to it")
        paths = {place(change.owner, change.id): change for change in changes}
        there = self._infos([*paths, "README.md"], info.sha)
        for path, change in paths.items():
            if change.version != (there[path].blob_id if path in there else ""):
                raise ConflictError("a file has changed")
        operations: list[CommitOperationAdd | CommitOperationDelete] = []
        for path, change in paths.items():
            if change.text is not None and not change.same:
                operations.append(CommitOperationAdd(path, change.text.encode()))
            elif change.text is None and path in there:
                operations.append(CommitOperationDelete(path, is_folder=False))
                self._kept.pop(path, None)
        if operations and "README.md" not in there:
            operations.append(CommitOperationAdd("README.md", CARD.encode()))
        self._commit(operations, info.sha)

    def _commit(self, operations: Sequence[CommitOperationAdd | CommitOperationDelete], parent: str | None) -> None:
        if operations:
            self._api.create_commit(
                self._name, operations, commit_message="Conversations", repo_type="dataset", parent_commit=parent
            )

    def _delete(self, owner: str, ids: Collection[str] | None) -> None:
        info = self._info()
        gone = _chosen((file.path for file in self._files(place(owner), info.sha)), owner, ids)
        self._commit([CommitOperationDelete(path, is_folder=False) for path in gone], info.sha)
        for path in [path for path in self._kept if path.startswith(place(owner))]:
            self._kept.pop(path, None)
        if len(self._api.list_repo_commits(self._name, repo_type="dataset")) > 1:
            self._api.super_squash_history(self._name, repo_type="dataset", commit_message="Conversations")
        try:
            large = list(self._api.list_lfs_files(self._name, repo_type="dataset"))
        except HfHubHTTPError as problem:
            log.warning("large files cannot be listed: %s", type(problem).__name__)
            return
        here = {file.path for file in self._files(place(owner))}
        dead = {path for path in _chosen((file.filename for file in large), owner, ids) if path not in here}
        if dead:
            self._api.permanently_delete_lfs_files(
                self._name, [file for file in large if file.filename in dead], repo_type="dataset"
            )

    def _left(self, owner: str, ids: Collection[str] | None) -> list[str]:
        refs = self._api.list_repo_refs(self._name, repo_type="dataset", include_pull_requests=True)
        found = [f"{ref.ref}: a converted copy" for ref in refs.converts]
        commits: set[str] = set()
        names = [ref.name for ref in [*refs.branches, *refs.tags]] + [ref.ref for ref in refs.pull_requests or []]
        for name in names:
            for commit in self._api.list_repo_commits(self._name, repo_type="dataset", revision=name):
                commits.add(commit.commit_id)
        for commit_id in sorted(commits):
            paths = (file.path for file in self._files(place(owner), commit_id))
            found += [f"{commit_id}:{path}" for path in _chosen(paths, owner, ids)]
        return found

    def _owners(self) -> list[str]:
        try:
            tree = list(self._api.list_repo_tree(self._name, FOLDER, repo_type="dataset"))
        except EntryNotFoundError:
            return []
        names = [folder.path.rsplit("/", 1)[1] for folder in tree if isinstance(folder, RepoFolder)]
        return [name for name in names if OWNER.fullmatch(name)]


def _chosen(paths: Iterable[str], owner: str, ids: Collection[str] | None) -> list[str]:
    wanted = None if ids is None else {place(owner, id) for id in ids}
    mine = (path for path in paths if path.startswith(f"{place(owner)}/"))
    return [path for path in mine if wanted is None or path in wanted]


def _is(file: RepoFile, data: bytes) -> bool:
    """Whether these are the bytes of that file: the branch can have moved between the two questions."""
    if file.lfs:
        return hashlib.sha256(data).hexdigest() == file.lfs.sha256
    blob = b"blob %d\0" % len(data) + data  # what git makes an object's name of
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest() == file.blob_id

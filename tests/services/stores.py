"""A Hugging Face Hub that can be written to: private datasets with a history, and buckets, for the unmodified client.

A dataset is a chain of commits over blobs; what no branch leads to any more is still there by its id, until `collect`.
Large files and buckets go through `hf_xet`, which keeps them in a local folder when the server names one.
"""

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from tests.services.hub import Hub, _Handler

WHEN = "2026-01-01T00:00:00.000000Z"
TOKEN = "hf_known"


@dataclass
class Commit:
    """One revision: its parent, and the blob behind each path."""

    id: str
    parent: str | None
    tree: dict[str, str]


@dataclass
class Dataset:
    """A git repository, as far as the Hub's API shows it."""

    private: bool = True
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the oid of the blob that points there
    dates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit({})

    @property
    def head(self) -> Commit:
        return self.commits[self.refs["main"]]

    def blob(self, data: bytes) -> str:
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        self.blobs[oid] = data
        return oid

    def commit(self, tree: dict[str, str], *, parent: str | None = None) -> str:
        name = f"{parent}{sorted(tree.items())}{len(self.commits)}{time.time_ns()}"
        id = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        self.commits[id] = Commit(id, parent, tree)
        self.refs["main"] = id
        return id

    def chain(self, id: str | None) -> list[Commit]:
        found = []
        while id:
            found.append(self.commits[id])
            id = found[-1].parent
        return found

    def collect(self) -> None:
        """What the Hub does some time after a squash: drops what nothing leads to."""
        alive = {commit.id for ref in self.refs.values() for commit in self.chain(ref)}
        self.commits = {id: commit for id, commit in self.commits.items() if id in alive}
        blobs = {oid for commit in self.commits.values() for oid in commit.tree.values()}
        self.blobs = {oid: data for oid, data in self.blobs.items() if oid in blobs}

    def files(self) -> dict[str, bytes]:
        return {path: self.blobs[oid] for path, oid in self.head.tree.items()}


@dataclass
class Bucket:
    """Files by path: their xet hash."""

    private: bool = True
    files: dict[str, str] = field(default_factory=dict)


class StoreHub(Hub):
    """The server. `datasets` and `buckets` are made by the test, by `OWNER/NAME`."""

    def __init__(self, root: Path, *, regular_bytes: int = 10_000_000, commits_per_hour: int = 10**9) -> None:
        super().__init__(frozenset({TOKEN, "hf_stranger"}))
        self.root, self.regular_bytes, self.commits_per_hour = root, regular_bytes, commits_per_hour
        self.datasets: dict[str, Dataset] = {}
        self.buckets: dict[str, Bucket] = {}
        self.lock = threading.RLock()
        self._shards: dict[Path, dict[str, tuple[int, str]]] = {}

    def handler(self) -> type[_Handler]:
        return _Writing

    def xet(self) -> dict[str, tuple[int, str]]:
        """Returns size and SHA-256 of what `hf_xet` uploaded, by its own hash, from the shards it wrote."""
        found: dict[str, tuple[int, str]] = {}
        for path in (self.root / "xet").glob("**/shards/*.mdb"):
            if path not in self._shards:
                self._shards[path] = _shard(path.read_bytes())
            found |= self._shards[path]
        return found


def _shard(data: bytes) -> dict[str, tuple[int, str]]:
    """Reads the files of an MDB shard: after 48 bytes, a header and its rows for each, until a mark of ones."""
    found, at = {}, 48
    while data[at : at + 32] != b"\xff" * 32 and at + 48 <= len(data):
        name, flags = data[at : at + 32], int.from_bytes(data[at + 32 : at + 36], "little")
        count = int.from_bytes(data[at + 36 : at + 40], "little")
        at += 48
        size = sum(int.from_bytes(data[row + 36 : row + 40], "little") for row in range(at, at + 48 * count, 48))
        at += 48 * count * (2 if flags & 0x80000000 else 1)
        sha = b""
        if flags & 0x40000000:
            sha, at = data[at : at + 32], at + 48
        found[_hex(name)] = (size, _hex(sha))
    return found


def _hex(data: bytes) -> str:
    return "".join(data[i : i + 8][::-1].hex() for i in range(0, len(data), 8))


class _Writing(_Handler):
    """Answers what the stores ask. Everything else is as `_Handler` has it."""

    @property
    def stores(self) -> StoreHub:
        return cast(StoreHub, self.hub)

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._serve()

    def _answer(self, path: str, *, half: bool) -> None:
        self._half = half
        with self.stores.lock:
            if path == "/api/validate-yaml":
                self._say(200, {"errors": [], "warnings": []})
            elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(.*))?", path):
                self._dataset(found[1], found[2] or "")
            elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._content(found[1], found[2], found[3])
            elif found := re.fullmatch(r"(?:/api)?/buckets/([^/]+/[^/]+)(?:/(.*))?", path):
                self._bucket(found[1], found[2] or "")
            else:
                super()._answer(path, half=half)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, half: bool = False) -> None:
        super()._send(status, data, headers, half=half or getattr(self, "_half", False))

    def _mine(self) -> bool:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") == TOKEN

    def _missing(self, code: str = "EntryNotFound") -> None:
        self._say(404, {"error": "not found"}, {"X-Error-Code": code})

    def _json(self) -> Any:
        if "urlencoded" in (self.headers.get("Content-Type") or ""):
            form = parse_qs(self.body.decode())
            return {key: value if key == "paths" else value[-1] for key, value in form.items()}
        return json.loads(self.body or b"{}")

    # Datasets

    def _dataset(self, name: str, rest: str) -> None:
        repo = self.stores.datasets.get(name)
        if repo is None or (repo.private and not self._mine()):
            self._missing("RepoNotFound")
            return
        verb, _, more = rest.partition("/")
        if verb in ("", "revision"):
            self._about(name, repo, more or "main")
        elif verb == "refs":
            refs = [{"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": id} for ref, id in repo.refs.items()]
            self._say(200, {"branches": refs, "converts": [], "tags": [], "pullRequests": []})
        elif verb == "lfs-files":
            self._large(repo, more)
        elif verb.startswith("xet-"):
            self._xet_token()
        elif verb == "super-squash":
            repo.commit(repo.head.tree)
            self._say(200, {})
        elif verb == "commit":
            self._commit(name, repo)
        elif verb == "preupload":
            self._preupload(repo)
        elif (commit := _revision(repo, unquote(more).split("/")[0])) is None:
            self._missing("RevisionNotFound")
        else:
            self._read(repo, commit, verb, more.partition("/")[2])

    def _about(self, name: str, repo: Dataset, revision: str) -> None:
        if commit := _revision(repo, revision):
            files = [{"rfilename": path} for path in sorted(commit.tree)]
            self._say(200, {"_id": name, "id": name, "sha": commit.id, "private": repo.private, "gated": False,
                            "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": files,
                            "lastModified": WHEN, "createdAt": WHEN})  # fmt: skip
        else:
            self._missing("RevisionNotFound")

    def _read(self, repo: Dataset, commit: Commit, verb: str, folder: str) -> None:
        if verb == "commits":
            rows = [{"id": one.id, "title": "Conversations", "message": "", "date": WHEN, "authors": []}
                    for one in repo.chain(commit.id)]  # fmt: skip
            self._say(200, rows)
        elif verb == "paths-info":
            wanted = self._json()["paths"]
            self._say(200, [_entry(repo, path, commit.tree[path]) for path in wanted if path in commit.tree])
        elif verb == "tree":
            self._tree(repo, commit, folder.rstrip("/"))
        else:
            self._missing()

    def _tree(self, repo: Dataset, commit: Commit, folder: str) -> None:
        inside = f"{folder}/" if folder else ""
        paths = [path for path in sorted(commit.tree) if path.startswith(inside)]
        if folder and not paths:
            self._missing()
            return
        deep = "recursive=true" in urlsplit(self.path).query.lower()
        rows: dict[str, dict[str, Any]] = {}
        for path in paths:
            parts = path[len(inside) :].split("/")
            for depth in range(1, len(parts)):
                parent = inside + "/".join(parts[:depth])
                if deep or depth == 1:
                    rows[parent] = {"type": "directory", "path": parent, "oid": "0" * 40, "size": 0}
            if deep or len(parts) == 1:
                rows[path] = _entry(repo, path, commit.tree[path])
        self._say(200, list(rows.values()))

    def _preupload(self, repo: Dataset) -> None:
        files = []
        for file in self._json()["files"]:
            large = file["size"] > self.stores.regular_bytes
            oid = repo.head.tree.get(file["path"])
            row = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            files.append({**row, **({"oid": oid} if oid else {})})
        self._say(200, {"files": files, "commitOid": repo.head.id})

    def _commit(self, name: str, repo: Dataset) -> None:
        now = time.time()
        repo.dates = [date for date in repo.dates if date > now - 3600]
        if len(repo.dates) >= self.stores.commits_per_hour:
            self._say(429, {"error": "You have exceeded the rate limit for repository commits"})
            return
        items = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        header = next(item["value"] for item in items if item["key"] == "header")
        if header.get("parentCommit") not in (None, repo.head.id):
            self._say(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        tree = dict(repo.head.tree)
        for item in items:
            value = item["value"]
            if item["key"] == "file":
                tree[value["path"]] = repo.blob(base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                size = next(size for size, sha in self.stores.xet().values() if sha == value["oid"])
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {size}\n"
                oid = tree[value["path"]] = repo.blob(pointer.encode())
                repo.large[oid] = {"oid": value["oid"], "size": size, "pointerSize": len(pointer)}
            elif item["key"] == "deletedFile" and tree.pop(value["path"], None) is None:
                self._missing()
                return
        repo.dates.append(now)
        id = repo.commit(tree, parent=repo.head.id)
        address = f"{self.hub.url}/datasets/{name}/commit/{id}"
        self._say(200, {"success": True, "commitOid": id, "commitUrl": address, "hookOutput": ""})

    def _large(self, repo: Dataset, more: str) -> None:
        if more == "batch":
            gone = set(self._json()["deletions"]["sha"])
            repo.large = {oid: row for oid, row in repo.large.items() if row["oid"] not in gone}
            self._say(200, {})
            return
        names = {oid: path for commit in repo.commits.values() for path, oid in commit.tree.items()}
        rows = [{"fileOid": row["oid"], "filename": names[oid], "oid": row["oid"], "size": row["size"],
                 "pushedAt": WHEN, "ref": "main"} for oid, row in repo.large.items() if oid in names]  # fmt: skip
        self._say(200, rows)

    def _content(self, name: str, revision: str, path: str) -> None:
        repo = self.stores.datasets.get(name)
        if repo is None or (repo.private and not self._mine()):
            self._missing("RepoNotFound")
        elif not (commit := _revision(repo, revision)):
            self._missing("RevisionNotFound")
        elif path not in commit.tree:
            self._missing()
        else:
            oid = commit.tree[path]
            data, status = repo.blobs[oid], 200
            headers = {"ETag": f'"{oid}"', "X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
            if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                start, end = int(found[1]), int(found[2] or len(data) - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
                data, status = data[start : end + 1], 206
            self._send(status, data, headers)

    # Buckets

    def _xet_token(self) -> None:
        folder, expires = f"local://{self.stores.root / 'xet'}", int(time.time()) + 3600
        answer = {"casUrl": folder, "accessToken": "xet", "exp": expires}
        headers = {"X-Xet-Cas-Url": folder, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
        self._say(200, answer, headers)

    def _bucket(self, name: str, rest: str) -> None:
        bucket = self.stores.buckets.get(name)
        verb, _, more = rest.partition("/")
        if bucket is None or (bucket.private and not self._mine()):
            self._missing("RepoNotFound")
        elif not verb:
            self._say(200, {"id": name, "private": bucket.private, "createdAt": WHEN, "size": 0,
                            "totalFiles": len(bucket.files)})  # fmt: skip
        elif verb.startswith("xet-"):
            self._xet_token()
        elif verb == "batch":
            for operation in (json.loads(line) for line in self.body.splitlines()):
                if operation["type"] == "addFile":
                    bucket.files[operation["path"]] = operation["xetHash"]
                else:
                    bucket.files.pop(operation["path"], None)
            self._say(200, {"success": True, "failed": []})
        elif verb == "tree":
            self._say(200, [self._file_row(bucket, path) for path in sorted(bucket.files) if path.startswith(more)])
        elif verb == "paths-info":
            self._say(200, [self._file_row(bucket, path) for path in self._json()["paths"] if path in bucket.files])
        elif verb == "resolve" and more in bucket.files:
            size = str(self.stores.xet()[bucket.files[more]][0])
            route = f"{self.hub.url}/api/buckets/{name}/xet-read-token"
            self._send(
                200, b"", {"X-Xet-Hash": bucket.files[more], "X-Xet-Refresh-Route": route, "X-Linked-Size": size}
            )
        else:
            self._missing()

    def _file_row(self, bucket: Bucket, path: str) -> dict[str, Any]:
        name = bucket.files[path]
        return {"type": "file", "path": path, "xetHash": name, "size": self.stores.xet()[name][0], "mtime": WHEN,
                "uploadedAt": WHEN}  # fmt: skip


def _revision(repo: Dataset, revision: str) -> Commit | None:
    revision = unquote(revision).removeprefix("refs/heads/")
    return repo.commits.get(repo.refs.get(revision, revision))


def _entry(repo: Dataset, path: str, oid: str) -> dict[str, Any]:
    row = {"type": "file", "path": path, "oid": oid, "size": len(repo.blobs[oid])}
    return {**row, "lfs": repo.large[oid], "size": repo.large[oid]["size"]} if oid in repo.large else row

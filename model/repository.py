"""What a repository holds, told from its file list and its headers: no weights are fetched to find out.

The same for a Hub id, a local folder and a local GGUF file. Knows nothing of devices, nor of how a model is loaded.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from io import StringIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Literal

from httpx2 import HTTPError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors import safe_open
from tqdm import tqdm

from errors import ModelError
from model.embedded import Progress, unheard

Weights = Literal["none", "plain", "wrapped", "gguf"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# What PEFT leaves in the names of a model that was saved while an adapter was on it.
WRAPPED = (".base_layer.", ".original_module.")
SMALL = ["*.json", "*.jinja", "tokenizer.model"]
# Of several GGUF files, the one that a name begins to match first: the usual balance of size and quality, then larger.
GGUF_ORDER = ("q4_k_m", "q5_k_m", "q6_k", "q8_0", "bf16", "f16", "f32")
SECONDS = 20.0  # for each question to the Hub
Bar: Any = tqdm
FETCHED = 0.9  # share of loading that is done when everything is downloaded


@dataclass(frozen=True)
class Repository:
    """A Hub repository at one commit, or a folder.

    Attributes:
        name: Hub id or path, as it was asked for.
        files: Bytes of each file of its top folder, by name.
        folder: Where it is when it is local; None on the Hub.
        revision: The commit on the Hub.
        asked: The revision that was asked for; what is downloaded under its name is found again without the Hub.
    """

    name: str
    files: Mapping[str, int]
    folder: Path | None = None
    revision: str = ""
    asked: str = ""
    token: str = field(default="", repr=False)

    def read(self, name: str) -> dict[str, Any]:
        """Returns a small JSON file."""
        found: dict[str, Any] = json.loads((self.fetch([name]) / name).read_text(encoding="utf-8"))
        return found

    def fetch(self, patterns: Sequence[str], progress: Progress = unheard) -> Path:
        """Returns the folder that the matching files are in, downloaded if they are not here; a broken download goes
        on where it ended."""
        if self.folder is not None:
            return self.folder
        wanted = sum(size for name, size in self.files.items() if any(fnmatch(name, mask) for mask in patterns))
        options: dict[str, Any] = {
            "revision": self.asked or None,
            "token": self.token or None,
            "tqdm_class": _counter(wanted, progress),
        }
        return Path(snapshot_download(self.name, allow_patterns=list(patterns), **options))


@dataclass(frozen=True)
class Shape:
    """What a repository holds.

    Attributes:
        adapter: The adapter's own settings, when there is one in safetensors.
        weights: `plain`, `wrapped` (saved through PEFT: `q_proj.base_layer.weight`), `gguf` or `none`.
        file: The GGUF file that is read.
        stored: How the weights are quantized in their file: `nf4`, `fp4`, `int8`, another method's name, or `none`
            (GGUF, whose blocks are made dense).
        size: Bytes of all weight files, where known.
    """

    adapter: dict[str, Any] | None
    weights: Weights
    file: str = ""
    stored: str = "none"
    size: int = 0

    @property
    def declared_base(self) -> str:
        """The base that the adapter says it was trained on, or ""."""
        return str((self.adapter or {}).get("base_model_name_or_path") or "")


def find(name: str, revision: str = "", token: str = "") -> Repository:
    """Returns the repository of a Hub id, a folder or a GGUF file, at one commit.

    The Hub is asked first; where it cannot be reached, what is in the local cache is used.

    Raises:
        OSError, httpx2.HTTPError: it is not there, not allowed, or out of reach.
    """
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return Repository(name, {path.name: path.stat().st_size}, path.parent)
    if path.is_dir():
        return Repository(name, _sizes(path), path)
    try:
        asked = HfApi(token=token or None)
        info = asked.model_info(name, revision=revision or None, timeout=SECONDS, files_metadata=True)
    except (ConnectionError, HTTPError) as problem:
        cached = None if isinstance(problem, RepositoryNotFoundError) else _cached(name, revision)
        if cached is None:
            raise
        return Repository(name, _sizes(cached), cached)
    files = {entry.rfilename: entry.size or 0 for entry in info.siblings or () if "/" not in entry.rfilename}
    return Repository(name, files, None, info.sha or revision, revision, token)


def inspect(repository: Repository) -> Shape:
    """Returns what the repository holds, from names and headers alone.

    Raises:
        ModelError: `only_pickles`, when there are weights and none in a safe format.
    """
    files = repository.files
    adapter = repository.read(ADAPTER_CONFIG) if ADAPTER_CONFIG in files else None
    if adapter is not None and ADAPTER_WEIGHTS not in files:
        raise ModelError("only_pickles", model=repository.name)
    own = sorted(name for name in files if _is_weights(name))
    if own:
        wrapped = any(mark in key for key in _keys(repository, own) for mark in WRAPPED)
        return Shape(
            adapter,
            "wrapped" if wrapped else "plain",
            stored=_stored(repository),
            size=sum(map(files.__getitem__, own)),
        )
    ggufs = sorted((name for name in files if name.endswith(".gguf")), key=_gguf_rank)
    if ggufs:
        return Shape(adapter, "gguf", ggufs[0], size=files[ggufs[0]])
    if adapter is None and any(name.endswith((".bin", ".pt", ".pth")) for name in files):
        raise ModelError("only_pickles", model=repository.name)
    return Shape(adapter, "none")


def weight_patterns(shape: Shape) -> list[str]:
    """Returns the patterns of the files that loading the repository's own weights takes."""
    return [shape.file] if shape.weights == "gguf" else [*SMALL, "model*.safetensors"]


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """Gives a view of the folder that hides its adapter, which transformers would put on by itself."""
    if not (folder / ADAPTER_CONFIG).exists():
        yield folder
        return
    with TemporaryDirectory(prefix="remanso-") as view:
        for file in folder.iterdir():
            if file.is_file() and not file.name.startswith("adapter_"):
                (Path(view) / file.name).symlink_to(file.resolve())
        yield Path(view)


def _counter(total: int, progress: Progress) -> Any:
    """Returns a progress bar for the Hub's client that shows nothing and tells how much of `total` bytes is here."""
    most = 0.0

    class Counter(Bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": False, "file": StringIO()})

        def update(self, n: float | None = 1) -> Any:
            nonlocal most
            shown = super().update(n)
            if self.unit == "B" and total:
                most = max(most, min(1.0, self.n / total))
                progress("fetch", FETCHED * most)
            return shown

    return Counter


def _cached(name: str, revision: str) -> Path | None:
    try:
        # Of the files that we may not have fetched, the client would say that the copy is incomplete.
        options: dict[str, Any] = {"revision": revision or None, "local_files_only": True}
        return Path(snapshot_download(name, allow_patterns=["config.json", ADAPTER_CONFIG], **options))
    except (OSError, ValueError):
        return None


def _is_weights(name: str) -> bool:
    # Some repositories hold the same weights twice, in another layout ("consolidated.safetensors").
    return PurePosixPath(name).match("model*.safetensors")


def _keys(repository: Repository, files: Sequence[str]) -> list[str]:
    if (index := "model.safetensors.index.json") in repository.files:
        return list(repository.read(index)["weight_map"])
    if repository.folder is not None:
        with safe_open(repository.folder / files[0], "pt") as opened:
            return list(opened.keys())
    api = HfApi(token=repository.token or None)
    header = api.parse_safetensors_file_metadata(repository.name, files[0], revision=repository.revision)
    return list(header.tensors)


def _stored(repository: Repository) -> str:
    if "config.json" not in repository.files:
        return "none"
    found = repository.read("config.json").get("quantization_config") or {}
    if found.get("quant_method") != "bitsandbytes":
        return str(found.get("quant_method", "none"))
    return str(found.get("bnb_4bit_quant_type", "nf4")) if found.get("load_in_4bit") else "int8"


def _sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}


def _gguf_rank(name: str) -> tuple[int, str]:
    low = name.lower()
    return next((i for i, mark in enumerate(GGUF_ORDER) if mark in low), len(GGUF_ORDER)), low

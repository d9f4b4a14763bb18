"""What goes wrong when a model is loaded or replies: one code each, with a hint for the operator.

The person's sentences are in `locales`, under `error.<code>`. Knows nothing of how a model is loaded.
"""

import errno
from collections import defaultdict

import httpx2
import torch
from huggingface_hub import errors as hub
from safetensors import SafetensorError

from errors import ModelError

# What an operator can do, in one line of the log.
HINTS = {
    "adapter_mismatch": "the adapter does not fit its base {base}: another width or vocabulary; see BASE_MODEL_ID",
    "disk_full": "no room in {folder}, {needed} MB are needed: free some, or set CACHE_DIR",
    "download_no_room": "no room for {model}: free some, or set HF_HOME to another disk",
    "gated_refused": "the account of HF_TOKEN may not read {model}: accept its terms at https://huggingface.co/{model}",
    "gated_without_token": "{model} is gated: accept its terms at https://huggingface.co/{model} and set HF_TOKEN, "
    "or set BASE_MODEL_ID to a base that is open",
    "hub_busy": "the Hub answers 429 for {model}: set HF_TOKEN for a higher limit; it is tried again",
    "model_corrupt": "{file} is damaged: delete it (or its download in HF_HOME), it will be fetched again",
    "model_not_found": "{model} is no repository that HF_TOKEN can see, and no folder",
    "model_unreachable": "the Hub cannot be reached for {model}, or ended the connection; it is tried again",
    "model_unsupported": "transformers does not know the architecture of {model}",
    "model_without_template": "{model} has no chat template: add chat_template.jinja beside its tokenizer",
    "no_bitsandbytes": "bitsandbytes is not installed: pip install bitsandbytes, or set QUANTIZATION=none",
    "no_cuda": "DEVICE=cuda, and torch sees no CUDA device: unset DEVICE, or install a driver and a CUDA torch",
    "only_pickles": "{model} has no safetensors; pickles are never loaded",
    "out_of_memory": "out of memory: set QUANTIZATION=nf4, a smaller MAX_CONTEXT_TOKENS, or a larger GPU",
    "revision_not_found": "{model} has no revision {revision}",
}
# What may be over by itself: it is tried again without being asked.
PASSING = frozenset({"model_unreachable", "hub_busy", "disk_full", "download_no_room", "out_of_memory"})
OF_HUB: tuple[tuple[type[BaseException], str], ...] = (  # the first that fits: some are kinds of others
    (hub.GatedRepoError, "gated_refused"),
    (hub.RevisionNotFoundError, "revision_not_found"),
    (hub.RepositoryNotFoundError, "model_not_found"),
    (hub.HFValidationError, "model_not_found"),
    (hub.LocalEntryNotFoundError, "model_unreachable"),
    (httpx2.HTTPError, "model_unreachable"),
    (ConnectionError, "model_unreachable"),
    (TimeoutError, "model_unreachable"),
)
FULL = (errno.ENOSPC, errno.EDQUOT)


def hint(problem: ModelError) -> str:
    """Returns what an operator can do about a problem, in one line."""
    values = defaultdict(lambda: "?", problem.values)
    known = HINTS.get(problem.code)
    return f"{problem.code}: {known.format_map(values)}" if known else f"{problem.code} {problem.values or ''}".strip()


def explained(problem: BaseException, model: str, *, revision: str = "", folder: str = "") -> ModelError:
    """Returns the error that stands for an exception of torch, transformers, PEFT, safetensors or the Hub's client.

    Args:
        model: the repository or folder that was being read.
    """
    if isinstance(problem, ModelError):
        return problem
    if is_out_of_memory(problem):
        return ModelError("out_of_memory")
    found = _of_hub(problem, model, revision)
    if found is None and isinstance(problem, OSError) and problem.errno in FULL:
        found = ModelError("download_no_room", model=model, folder=folder)
    return found or _of_model(problem, model)


def is_out_of_memory(problem: BaseException) -> bool:
    """Tells whether an exception means that memory of the GPU or of the computer is used up."""
    said = str(problem)
    return isinstance(problem, torch.OutOfMemoryError | MemoryError) or (
        isinstance(problem, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)
    )


def _of_hub(problem: BaseException, model: str, revision: str) -> ModelError | None:
    status = getattr(getattr(problem, "response", None), "status_code", 0)
    if "Consistency check failed" in str(problem):  # a download that ended early
        return ModelError("model_unreachable", model=model)
    code = next((code for kind, code in OF_HUB if isinstance(problem, kind)), None)
    code = {401: "gated_without_token", 403: "gated_refused"}.get(status, code) if code == "gated_refused" else code
    code = "hub_busy" if status == 429 else code
    return ModelError(code, model=model, revision=revision) if code else None


def _of_model(problem: BaseException, model: str) -> ModelError:
    said = str(problem)
    if isinstance(problem, SafetensorError):
        return ModelError("model_corrupt", file=model)
    if "bitsandbytes" in said and isinstance(problem, ImportError):
        return ModelError("no_bitsandbytes")
    if "CUDA enabled" in said or "NVIDIA driver" in said or "No CUDA GPUs" in said:
        return ModelError("no_cuda")
    if "size mismatch" in said or "Target modules" in said:
        return ModelError("adapter_mismatch", base=model)
    if "does not recognize this architecture" in said or "Unrecognized" in said or "not supported yet" in said:
        return ModelError("model_unsupported", model=model)
    return ModelError("model_failed", kind=type(problem).__name__)

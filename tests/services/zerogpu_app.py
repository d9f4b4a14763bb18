"""Runs the app as on ZeroGPU, with the real `spaces` package, on a torch without CUDA.

What is replaced is CUDA alone: `spaces` then imports, weights "on the GPU" are in the worker's memory, and `cuda` in
the worker means the CPU. Packing to disk, fork, pipes, the scheduler's client and Gradio are what they are.
"""

import functools
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, cast

import bitsandbytes  # noqa: F401 - chooses its own code for the CPU while torch still says that there is no CUDA
import torch
from torch.overrides import TorchFunctionMode

LOOSE = cast(Any, torch)  # of which parts are replaced that its types say nothing of


def _no_cuda(*_args: Any, **_options: Any) -> None:
    raise RuntimeError("this torch has no CUDA")


def _not_forked() -> bool:
    return False


_not_forked.__module__, _not_forked.__qualname__ = "torch.cuda", "_is_in_bad_fork"  # it is pickled by name
LOOSE.version.cuda = "13.0"
LOOSE._C._cuda_init = getattr(LOOSE._C, "_cuda_init", _no_cuda)
LOOSE.cuda._is_in_bad_fork = _not_forked

emulation: Any = import_module("spaces.zero.torch")
patching: Any = import_module("spaces.zero.torch.patching")
wrappers: Any = import_module("spaces.zero.wrappers")


class CudaIsCpu(TorchFunctionMode):
    """Reads the device `cuda` as `cpu`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if options.get("device") is not None:
            options["device"] = _cpu(options["device"])
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], str | torch.device):
            args = (args[0], _cpu(args[1]), *args[2:])
        return func(*args, **options)


def _cpu(device: Any) -> Any:
    return "cpu" if "cuda" in str(device) or isinstance(device, int) else device


def _init(nvidia_uuid: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = nvidia_uuid


def _move(callback: Callable[[int], Any] | None = None) -> None:
    """Puts the packed tensors back behind their stand-ins, in memory."""
    for fake, original in list(patching.cuda_aliases.items()):
        if original is not None:
            fake.data = torch.Tensor(original).data
    for pack in patching.tensor_packs:
        with open(pack.path(), "rb") as file:
            blob = file.read()
        offset = 0
        for meta, size, aligned in [*(one for batch in pack.batches for one in batch), *pack.big_tensors]:
            raw = torch.frombuffer(bytearray(blob[offset : offset + size]), dtype=torch.uint8)
            offset += aligned
            real = torch.tensor([], dtype=meta.dtype)
            real.set_(raw.untyped_storage(), 0, meta.shape, meta.stride())
            for fake in pack.fakes[meta]:
                fake.data = real
    del callback


def _on_cpu(wrap: Callable[..., Any], task: Callable[..., Any], *rest: Any) -> Any:
    @functools.wraps(task)
    def inner(*args: Any, **options: Any) -> Iterator[Any]:
        with CudaIsCpu():
            yield from task(*args, **options)

    return wrap(inner, *rest)


emulation.init, emulation.move = _init, _move
wrappers.generator_function_wrapper = functools.partial(_on_cpu, wrappers.generator_function_wrapper)

if __name__ == "__main__":
    import_module("app").main()

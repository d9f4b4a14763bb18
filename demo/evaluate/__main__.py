"""Measures a model on openings that it has not seen, as the application would answer them.

    python -m demo.evaluate                              # the embedded model, 200 openings: ten minutes on 2 cores
    python -m demo.evaluate --adapter none --limit 20    # its base alone
    python -m demo.evaluate --adapter demo/runs/checkpoint-90 --temperature 0.5

Same loading, system prompt and sampling as in the application; what the model says is measured before the guard. Writes
a table and every reply; a share is given with its 95 % interval.

A table near 100 % is no proof of sense: a reply can have the form, take up the words and mean nothing. The loss and the
likeness to what was said tell more than the form does, and the replies have to be read.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args

from config import EMBEDDED, Quantization, Settings
from demo.data import OURS
from demo.data.text import grams, likeness
from demo.evaluate.embedder import embedder
from demo.evaluate.held_back import Dialogue, loss
from demo.evaluate.measures import Known, Match, Reply, Topic, distinct, match, shares
from demo.train import split
from history import Message
from model import ChatModel, Sampling, load
from model.embedded import ensure_base
from sentences import Language, say

HERE = Path(__file__).parent.parent
ADAPTER = HERE / "adapter"
TEMPLATE = ADAPTER / "chat_template.jinja"
NEAR = 0.4  # likeness from which an opening is said to be known
Table = dict[str, dict[str, str]]  # a measure's name to its value by column


class Opening(NamedTuple):
    """The first message of somebody."""

    id: str
    lang: Language
    text: str


def openings(path: Path, limit: int | None, offset: int = 0) -> list[Opening]:
    """Reads openings, languages in turn; a limited number is taken evenly from all, from the one at `offset` on."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    read = [Opening(row["id"], row["lang"], row["text"]) for row in rows]
    if limit is None or limit >= len(read):
        return read
    by_language = [[one for one in read if one.lang == lang] for lang in sorted({one.lang for one in read})]
    each = math.ceil(limit / len(by_language))
    spread = [group[offset :: max(1, len(group) // each)][:each] for group in by_language]
    return [one for turn in zip_longest(*spread) for one in turn if one][:limit]


def unseen(asked: Sequence[Opening], trained: Sequence[Dialogue]) -> list[Opening]:
    """Returns the openings that nobody says in the training dialogues, nearly in the same words."""
    said = {grams(turn.text) for turns in trained for turn in turns if turn.role == "user"}
    runs = {one.id: grams(one.text) for one in asked}
    return [one for one in asked if max(likeness(runs[one.id], other) for other in said) < NEAR]


def loaded(adapter: str, quantization: str, settings: Settings) -> ChatModel:
    """Loads the base with an adapter, through the application's own loader; `none` is the base alone."""
    settings = settings.model_copy(update={"quantization": quantization, "base_model_id": ""})
    if adapter != "none" and Path(adapter).resolve() == ADAPTER.resolve():
        return load(settings.model_copy(update={"model_id": EMBEDDED}))
    base = ensure_base(settings.cache_dir)
    if adapter != "none":
        return load(settings.model_copy(update={"model_id": adapter, "base_model_id": str(base)}))
    with TemporaryDirectory() as folder:  # the base has no chat template of its own
        for file in base.iterdir():
            (Path(folder) / file.name).symlink_to(file)
        (Path(folder) / TEMPLATE.name).write_text(TEMPLATE.read_text(encoding="utf-8"), encoding="utf-8")
        return load(settings.model_copy(update={"model_id": folder}))


def replies(chat: ChatModel, asked: Sequence[Opening], sampling: Sampling) -> Iterator[Reply]:
    """Yields the model's reply to each opening, each with a seed of its own."""
    for number, one in enumerate(asked):
        system = say(one.lang, "model.system")
        own = replace(sampling, seed=(sampling.seed or 0) + number)
        deltas = list(chat.stream([Message("system", system), Message("user", one.text)], own))
        text = "".join(delta.text for delta in deltas).strip()
        yield Reply(one.id, one.lang, one.text, text, deltas[-1].finish or "")


def measured(said: Sequence[Reply], trained: Sequence[Dialogue]) -> Table:
    """Returns every measure of the replies, for all and for each language."""
    known = Known([turn.text for turns in trained for turn in turns if turn.role == "assistant"])
    topic = Topic([turn.text for turns in trained for turn in turns if turn.role != "system"])
    columns = {"all": list(said)}
    for lang in sorted({reply.lang for reply in said}, reverse=True):
        columns[lang] = [reply for reply in said if reply.lang == lang]
    table: Table = {}
    for column, mine in columns.items():
        for name, value in {**shares(mine, known), **_figures(column, mine, known, topic)}.items():
            table.setdefault(name, {})[column] = str(value)
    return table


def _figures(column: str, said: Sequence[Reply], known: Known, topic: Topic) -> dict[str, str]:
    """Returns the measures that are no share."""
    texts = [reply.text for reply in said]
    words = [len(text.split()) for text in texts]
    alike, runs = [known.likeness(text) for text in texts], [known.run(text) for text in texts]
    figures = {
        "words, median [range]": f"{statistics.median(words):.0f} [{min(words)}, {max(words)}]",
        "distinct-1, distinct-2": f"{distinct(texts, 1):.2f}, {distinct(texts, 2):.2f}",
        "likeness to a training reply, median, highest": f"{statistics.median(alike):.2f}, {max(alike):.2f}",
        "words in a row of one, median, most": f"{statistics.median(runs):.0f}, {max(runs)}",
    }
    if column == "all":
        return figures  # a reply in another language is no fair stranger
    pairs = [(reply.opening, reply.text) for reply in said]
    figures["takes up the opening's words: own, others', own wins"] = _shown(match(pairs, topic.overlap))
    if column == "en" and (model := embedder()):
        figures["near in meaning (embedding): own, others', own wins"] = _shown(match(pairs, model.likeness))
    return figures


def _shown(found: Match | None) -> str:
    return f"{found.own:.3f}, {found.others:.3f}, {found.own_wins:.0%}" if found else "–"


def markdown(settings: dict[str, Any], table: Table) -> str:
    """Returns the table with what it was measured on."""
    columns = list(dict.fromkeys(column for values in table.values() for column in values))
    lines = [
        "# Evaluation",
        "",
        ", ".join(f"{name} {value}" for name, value in settings.items()) + ".",
        "",
        f"| measure | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [
        f"| {name} | {' | '.join(values.get(column, '') for column in columns)} |" for name, values in table.items()
    ]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    own = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m demo.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--openings", type=Path, default=HERE / "openings.jsonl")
    parser.add_argument(
        "--data", type=Path, nargs="+", default=OURS, help="what the adapter was trained on, the last stage last"
    )
    parser.add_argument("--adapter", default=str(ADAPTER), help="folder of an adapter, or `none`")
    parser.add_argument("--quantization", choices=get_args(Quantization), default="none")
    parser.add_argument("--temperature", type=float, default=own.warmth(small=True))
    parser.add_argument("--top-p", type=float, default=own.top_p)
    parser.add_argument("--repetition-penalty", type=float, default=own.repetition_penalty)
    parser.add_argument("--max-new-tokens", type=int, default=own.max_new_tokens)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--limit", type=int, help="so many openings, and held-back dialogues, at most")
    parser.add_argument("--offset", type=int, default=0, help="which ones of them, where there is a limit: 0, 1, ...")
    parser.add_argument("--output", type=Path, default=HERE / "runs" / "evaluation", help="name without `.json`, `.md`")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    parts = [split(path) for path in options.data]
    held_back, trained = parts[-1][0][: options.limit], [turns for _, learned in parts for turns in learned]
    sampling = Sampling(
        options.temperature, options.top_p, options.repetition_penalty, options.max_new_tokens, options.seed
    )
    chat = loaded(options.adapter, options.quantization, Settings())
    asked = unseen(openings(options.openings, options.limit, options.offset), trained)
    said = list(replies(chat, asked, sampling))
    nats = loss(chat, held_back)
    table = measured(said, trained)
    table["held-back loss, nats per token; perplexity"] = {"all": f"{nats:.3f}; {math.exp(nats):.1f}"}
    settings = {
        "adapter": options.adapter if options.adapter == "none" else Path(options.adapter).name,
        "quantization": chat.describe().quantization,
        "openings": len(said),
        "held-back dialogues": len(held_back),
        **asdict(sampling),
    }
    everything = {"settings": settings, "measures": table, "replies": [reply._asdict() for reply in said]}
    written = {"json": json.dumps(everything, ensure_ascii=False, indent=2) + "\n", "md": markdown(settings, table)}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for ending, text in written.items():
        options.output.with_name(f"{options.output.name}.{ending}").write_text(text, encoding="utf-8")
    print(written["md"])


if __name__ == "__main__":
    main()

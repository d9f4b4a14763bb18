"""What is wrong with a file of dialogues, finding by finding. Changes nothing; `repair` does.

A finding names a dialogue and a rule, and never quotes a person. Knows nothing of training.
"""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer

from config import Settings
from demo.data.repair import mended
from demo.data.rules import DELICATE, contacts, faults, repeated
from demo.data.text import Pair, is_in, near, plain
from sentences import LANGUAGES

KEYS = ("id", "lang", "topic", "messages")
ALIKE = 0.5  # likeness from which two openings or two replies are near-duplicates
REPLY_WORDS = (8, 80)
MOST_TOKENS = 4096  # of a dialogue: the context that the application uses
LONG_TOKENS = 1024
TOKENS_A_WORD = 1.5  # where no tokenizer is here; Gemma's makes 1.3 of a Spanish word, and 1.2 of an English one
BEGINNINGS = 15  # at most one reply in so many may begin with the same two words
LEAST_LANGUAGE, MOST_TOPIC = 0.2, 0.1  # shares of the dialogues
FEW = 50  # replies or dialogues below which shares say nothing
SHOWN = 12  # places that are named for each kind

Row = dict[str, Any]


class Finding(NamedTuple):
    """Something wrong: how grave, of which kind, where (an id, or a line where there is none), and what."""

    level: Literal["error", "warning"]
    kind: str
    where: str
    what: str = ""


def check(lines: Iterable[str]) -> list[Finding]:
    """Returns what is wrong with the dialogues, one JSON object a line."""
    rows, findings = _read(lines)
    for row in rows:
        findings += _row(row)
    findings += _duplicates("opening", [(row["id"], _replies(row, "user")[0]) for row in rows])
    findings += _duplicates("reply", [(row["id"], reply) for row in rows for reply in _replies(row)])
    return findings + list(_balance(rows))


def _read(lines: Iterable[str]) -> tuple[list[Row], list[Finding]]:
    """Returns the rows that have the schema, and what is wrong with the others."""
    rows, findings, seen = [], [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            findings.append(Finding("error", "json", f"line {number}", "not a JSON object"))
            continue
        if wrong := schema(row):
            findings += [Finding("error", "schema", f"line {number}", what) for what in wrong]
            continue
        if row["id"] in seen:
            findings.append(Finding("error", "schema", row["id"], "id is not its own"))
        seen.add(row["id"])
        rows.append(row)
    return rows, findings


def schema(row: Any) -> list[str]:
    """Returns how a row departs from `{"id", "lang", "topic", "messages": [{"role", "content"}, ...]}`.

    A system message may come first; then user and assistant alternate, beginning with the user and ending with the
    assistant.
    """
    if not isinstance(row, dict):
        return ["not an object"]
    wrong = [f"no {key}" for key in KEYS if key not in row]
    wrong += [f"{key} is no text" for key in KEYS[:3] if key in row and not (isinstance(row[key], str) and row[key])]
    if row.get("lang") not in LANGUAGES:
        wrong.append(f"lang is none of {', '.join(LANGUAGES)}")
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        return [*wrong, "messages are not objects of role and content"]
    if not all(message["content"].strip() for message in messages):
        wrong.append("empty turn")
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2):
        wrong.append("roles do not alternate from user to assistant")
    return wrong


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and set(message) == {"role", "content"}
        and all(isinstance(value, str) for value in message.values())
    )


def _replies(row: Row, role: str = "assistant") -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == role]


def _row(row: Row) -> Iterator[Finding]:
    """Yields what one dialogue tells by itself."""
    where, earlier = row["id"], list[str]()
    if tokens(row) > LONG_TOKENS:
        yield Finding("error" if tokens(row) > MOST_TOKENS else "warning", "tokens", where, str(tokens(row)))
    for message in row["messages"]:
        text, is_reply = message["content"], message["role"] == "assistant"
        if mended(text) != text:
            yield Finding("error", "characters", where, message["role"])
        if not is_in(text, row["lang"]):
            yield Finding("error" if is_reply else "warning", f"language of {message['role']}", where)
        if is_reply:
            yield from _reply(row, text, earlier)
            earlier.append(text)
        elif contacts(text):
            yield Finding("error", "contact", where, message["role"])


def _reply(row: Row, text: str, earlier: list[str]) -> Iterator[Finding]:
    where = row["id"]
    for fault in faults(text, row["lang"]):
        yield Finding("error", fault.kind, where, fault.found)
    if repeated(text, earlier):
        yield Finding("error", "repeats itself", where)
    if delicate := DELICATE.search(plain(text)):
        yield Finding("warning", "delicate word", where, delicate[0])
    words = len(text.split())
    if not REPLY_WORDS[0] <= words <= REPLY_WORDS[1]:
        yield Finding("warning", "words of a reply", where, str(words))


def _duplicates(kind: str, texts: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Yields the texts that another has too, in the same plain spelling or nearly."""
    first: dict[str, str] = {}
    for where, text in texts:
        key = plain(text) or text
        if key in first:
            # People greet alike, and a reply may be a fixed one: who answers here, what only a doctor can say.
            copied = kind == "opening" and len(key.split()) > 2
            yield Finding("error" if copied else "warning", f"same {kind}", where, f"as {first[key]}")
        first.setdefault(key, where)
    own = list(first.items())
    pairs: list[Pair] = near([text for text, _ in own], ALIKE)
    for one, other, score in pairs:
        yield Finding("warning", f"near-duplicate {kind}", own[other][1], f"{own[one][1]} {score:.2f}")


def _balance(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yields a language with too few dialogues, a topic with too many, a beginning that too many replies have."""
    if len(rows) < FEW:
        return
    languages, topics = (Counter(row[key] for row in rows) for key in ("lang", "topic"))
    for language in LANGUAGES:
        if (share := languages[language] / len(rows)) < LEAST_LANGUAGE:
            yield Finding("warning", "balance", language, f"{share:.0%} of the dialogues")
    for topic, number in topics.items():
        if number > MOST_TOPIC * len(rows):
            yield Finding("warning", "balance", topic, f"{number / len(rows):.0%} of the dialogues")
    for language in LANGUAGES:
        replies = [plain(reply).split() for row in rows if row["lang"] == language for reply in _replies(row)]
        for beginning, number in Counter(" ".join(words[:2]) for words in replies).most_common():
            if len(replies) >= FEW and number > len(replies) / BEGINNINGS:
                yield Finding(
                    "warning", "beginning", beginning, f"{number / len(replies):.0%} of the {language} replies"
                )


@cache
def _tokenizer() -> Tokenizer | None:
    """Returns the embedded model's tokenizer if its base was converted on this machine."""
    # Looked for by name: to import `model` takes torch, and many seconds.
    files = sorted(Settings().cache_dir.glob("gemma-3-270m/*/tokenizer.json"))
    return Tokenizer.from_file(str(files[-1])) if files else None


def tokens(row: Row) -> int:
    """Returns about how many tokens a dialogue takes, control tokens and our system prompt left out."""
    texts = [message["content"] for message in row["messages"]]
    if (tokenizer := _tokenizer()) is None:
        return round(TOKENS_A_WORD * sum(len(text.split()) for text in texts))
    return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)


def summary(lines: Iterable[str], findings: Sequence[Finding]) -> str:
    """Returns the report: what the file holds, then the findings by kind, errors first."""
    rows = _read(lines)[0]
    report = [f"{len(rows)} dialogues", *_contents(rows)]
    for level in ("error", "warning"):
        kinds: dict[str, list[Finding]] = defaultdict(list)
        for finding in findings:
            if finding.level == level:
                kinds[finding.kind].append(finding)
        report.append(f"{sum(map(len, kinds.values()))} {level}s")
        for kind, found in sorted(kinds.items()):
            shown = ", ".join(f"{one.where} ({one.what})" if one.what else one.where for one in found[:SHOWN])
            more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            report.append(f"  {kind}: {len(found)}: {shown}{more}")
    return "\n".join(report)


def _contents(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    languages = Counter(row["lang"] for row in rows)
    turns = Counter(len(_replies(row)) for row in rows)
    words = [len(reply.split()) for row in rows for reply in _replies(row)]
    lengths = [tokens(row) for row in rows]
    yield "  languages: " + ", ".join(f"{code} {number}" for code, number in languages.most_common())
    yield "  topics: " + str(len({row["topic"] for row in rows}))
    yield "  replies in a dialogue: " + ", ".join(f"{number} in {turns[number]}" for number in sorted(turns))
    yield f"  words of a reply: {min(words)} to {max(words)}, median {statistics.median(words):.0f}"
    yield f"  tokens of a dialogue: {min(lengths)} to {max(lengths)}, median {statistics.median(lengths):.0f}"

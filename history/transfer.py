"""What a person takes along and brings back: many conversations as one text, within bounds. Knows nothing of stores."""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import uuid4

from errors import RemansoError
from history.conversation import SCHEMA, Conversation, from_row, to_markdown, to_row
from sentences import Language

ALL = "remanso.conversations/1"
IMPORT_BYTES = 5_000_000
IMPORT_MESSAGES = 10_000  # in all
IMPORT_CONVERSATIONS = 500
TEXT_CHARS = 100_000  # of one message
TITLE_CHARS = 120
WORD_CHARS = 500  # of what may be said with a thumb
OVERRIDES = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])  # turn the direction of other text


@dataclass(frozen=True)
class Rating:
    """A thumb up or down, and what was said with it."""

    up: bool
    word: str = ""


@dataclass
class Parcel:
    """One conversation as it travels: with its title, and its ratings by message id."""

    conversation: Conversation
    title: str = ""
    ratings: dict[str, Rating] = field(default_factory=dict)


def plain(text: str) -> str:
    """Removes what is no text: control characters, lone surrogates, bidirectional overrides."""
    kept = (c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    return "".join(kept).translate(OVERRIDES)


def plain_title(text: str) -> str:
    """Returns a title: one line, not too long."""
    return " ".join(plain(text[: 4 * TITLE_CHARS]).split())[:TITLE_CHARS]


def pack(parcels: Sequence[Parcel], form: Literal["md", "json"], language: Language) -> str:
    """Returns conversations as Markdown to read, or as JSON of the schema `remanso.conversations/1` to import."""
    if form == "md":
        return "\n\n".join(to_markdown(one.conversation, language, one.title) for one in parcels)
    data = {"schema": ALL, "conversations": [_to_data(one) for one in parcels]}
    return json.dumps(data, ensure_ascii=False, indent=2)


def unpack(text: str) -> list[Parcel]:
    """Reads what `pack` or `to_json` wrote: all conversations of a person, or one.

    Raises:
        RemansoError: `import_large` where it is over a bound, `import_bad` where it is something else.
    """
    if len(text) > IMPORT_BYTES or len(text.encode("utf-8", "replace")) > IMPORT_BYTES:
        raise RemansoError("import_large", limit=IMPORT_BYTES // 1_000_000)
    try:
        data: Any = json.loads(text)
        found = list(_items(data))
        if len(found) > IMPORT_CONVERSATIONS or sum(len(item["messages"]) for item in found) > IMPORT_MESSAGES:
            raise RemansoError("import_large", limit=IMPORT_BYTES // 1_000_000)
        return [_from_data(item) for item in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise RemansoError("import_bad") from None


def _items(data: Any) -> Iterator[dict[str, Any]]:
    if data["schema"] == SCHEMA:
        yield data
    elif data["schema"] == ALL:
        yield from data["conversations"]
    else:
        raise ValueError("of another schema")


def _to_data(parcel: Parcel) -> dict[str, Any]:
    ratings = [{"message": id, "up": one.up, "word": one.word} for id, one in parcel.ratings.items()]
    rows = [to_row(message) for message in parcel.conversation.messages]
    return {"title": parcel.title, "messages": rows, "ratings": ratings}


def _from_data(item: dict[str, Any]) -> Parcel:
    parcel = Parcel(Conversation(), plain_title(str(item.get("title", ""))))
    taken: set[str] = set()
    for row in item["messages"]:
        message = from_row(row)
        if len(message.text) > TEXT_CHARS or len(message.aside) > TEXT_CHARS:
            raise RemansoError("import_large", limit=IMPORT_BYTES // 1_000_000)
        id = message.id if message.id not in taken else uuid4().hex
        taken.add(id)
        message = replace(message, text=plain(message.text), aside=plain(message.aside), id=id)
        parcel.conversation.messages.append(message)
    for rating in item.get("ratings", []):
        if rating["message"] in taken:
            word = plain(str(rating.get("word", "")))[:WORD_CHARS]
            parcel.ratings[rating["message"]] = Rating(bool(rating["up"]), word)
    return parcel

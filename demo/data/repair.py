"""Mends the usual faults of chat files, of ours and of other people's, and tells of each mend by its place.

It reads JSON lines, a single JSON array, and what is nearly JSON (trailing commas, comments, single quotes); messages
under the names that ShareGPT, Alpaca and question-answer files give them; text in broken encodings. What it cannot
mend it leaves out, and says so. Knows nothing of what a good reply is: `check` does.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ftfy
import json_repair

from demo.data.text import TELLING, language, nearest_language, plain
from sentences import LANGUAGES

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = {
    SYSTEM: "system sistema developer",
    USER: "user human client patient seeker usr usuario usuaria cliente paciente persona person prompter asker me",
    ASSISTANT: "assistant gpt bot model ai chatbot chatgpt therapist counselor counsellor psychologist supporter"
    " listener helper advisor asistente terapeuta psicologo psicologa consejero consejera modelo",
}
ROLE_OF = {alias: role for role, aliases in ROLES.items() for alias in aliases.split()}
LISTS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat", "utterances")
PAIRS = (
    ("prompt", "response"), ("prompt", "completion"), ("prompt", "chosen"), ("instruction", "output"),
    ("instruction", "response"), ("question", "answer"), ("questionText", "answerText"), ("Context", "Response"),
    ("input", "output"), ("input", "target"), ("user", "assistant"), ("human", "assistant"), ("human", "gpt"),
    ("pregunta", "respuesta"), ("entrada", "salida"),
)  # fmt: skip
WHO = ("role", "from", "speaker", "author", "sender", "name")
WHAT = ("content", "value", "text", "message", "utterance", "body")
LANGUAGE_NAMES = {"spa": "es", "spanish": "es", "espanol": "es", "castellano": "es"} | {
    "eng": "en", "english": "en", "ingles": "en"
}  # fmt: skip
# Quotes, ligatures and wide letters are how somebody writes; what no one wrote is mended.
TEXT = ftfy.TextFixerConfig(
    uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, unescape_html=True, explain=False
)
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u00ad"))
SURE = 0.9  # probability from which a dialogue is left out for its language
BROKEN_TIMES = 5  # text that was broken twice is mended twice; this many at most


class Mend(NamedTuple):
    """What was done: the line (or, in an array, the number of the element), and what was wrong there."""

    place: int
    what: str


class Unusable(Exception):
    """A row that cannot be mended; the text says why."""


def repair(data: bytes) -> tuple[bytes, list[Mend]]:
    """Returns the file as JSON lines of our schema, and what was mended; a good file comes back as it is."""
    mends: list[Mend] = []
    taken: set[str] = set()
    lines = []
    for place, source, value in _values(_text_of(data, mends), mends):
        notes: list[str] = []
        try:
            row = _row(value, place, taken, notes)
        except Unusable as reason:
            mends.append(Mend(place, f"left out: {reason}"))
            continue
        mends += [Mend(place, note) for note in dict.fromkeys(notes)]
        lines.append(source if source and not notes else json.dumps(row, ensure_ascii=False))
    if not mends:
        return data, []
    return "".join(f"{line}\n" for line in lines).encode(errors="replace"), mends


def mended(text: str) -> str:
    """Returns a text without mojibake, HTML entities, control or invisible characters and outer spaces."""
    for _ in range(BROKEN_TIMES):
        before, text = text, ftfy.fix_text(text, TEXT).translate(INVISIBLE).strip()
        if text == before:
            break
    return text


def _text_of(data: bytes, mends: list[Mend]) -> str:
    """Decodes line by line: files that were joined can have more than one encoding."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        mends.append(Mend(1, "UTF-16"))
        data = data.decode("utf-16", errors="replace").encode()
    if data.startswith(b"\xef\xbb\xbf"):
        mends.append(Mend(1, "byte order mark"))
        data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        mends.append(Mend(1, "line ends"))
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = []
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            mends.append(Mend(number, "not UTF-8"))
            lines.append(ftfy.guess_bytes(line)[0])
    return "\n".join(lines)


def _strict(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _values(text: str, mends: list[Mend]) -> Iterator[tuple[int, str, Any]]:
    """Yields the rows of a file: place, the line if it was good JSON, value."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    by_line = sum(len(line) > 2 and line[0] in "{[" for _, line in lines) * 2 >= len(lines) and not _strict(text)
    if not by_line and not isinstance(_strict(text), dict):
        mends.append(Mend(1, "one document"))
    elif not by_line and len(lines) > 1:
        mends.append(Mend(1, "one object over several lines"))
    for number, line in lines if by_line else [(1, text.strip())] if lines else []:
        value, source = _strict(line), "" if "\n" in line else line
        if value is None:
            value, source = json_repair.loads(line, skip_json_loads=True), ""
            mends.append(Mend(number, "JSON"))
        rows = _rows(value)
        if by_line and len(rows) > 1:
            mends.append(Mend(number, "several rows"))
        for place, row in enumerate(rows, 1):
            yield number if by_line else place, source if row is value else "", row


def _rows(value: Any) -> list[Any]:
    """Takes apart what holds several dialogues: an array, or an object around one."""
    if isinstance(value, list) and value and not _is_dialogue(value):
        return [row for part in value for row in _rows(part)]
    if isinstance(value, dict) and len(value) == 1 and not set(value) & set(LISTS):
        (inner,) = value.values()
        if isinstance(inner, list) and all(isinstance(row, dict | list) for row in inner):
            return _rows(inner)
    return [value]


def _is_dialogue(parts: list[Any]) -> bool:
    return all(isinstance(part, dict) and _first(part, WHO) and _first(part, WHAT) for part in parts)


def _first(row: dict[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in row), "")


def _row(value: Any, place: int, taken: set[str], notes: list[str]) -> dict[str, Any]:
    """Returns a row of our schema, with whatever else it held."""
    row = {"messages": value} if isinstance(value, list) else value
    if not isinstance(row, dict) or not row:
        raise Unusable("no dialogue")
    pairs, used = _turns(row, notes)
    messages = _alternating(pairs, notes)
    texts = " ".join(message["content"] for message in messages)
    rest = {key: held for key, held in row.items() if key not in {*used, "id", "lang", "topic"}}
    made = {
        "id": _own(_scalar(row, "id", f"row-{place:05}", notes), taken, notes),
        "lang": _language(row.get("lang"), texts, notes),
        "topic": _scalar(row, "topic", "other", notes),
        **rest,
        "messages": messages,
    }
    taken.add(made["id"])
    return made


def _scalar(row: dict[str, Any], key: str, otherwise: str, notes: list[str]) -> str:
    value = row.get(key)
    if isinstance(value, str) and value:
        return value
    notes.append(f"{key} given")
    return str(value) if value not in (None, "") and isinstance(value, str | int | float) else otherwise


def _own(name: str, taken: set[str], notes: list[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    if found != name:
        notes.append("id made its own")
    return found


def _language(declared: Any, texts: str, notes: list[str]) -> str:
    """Returns which of our languages a dialogue says that it is in, or is in."""
    if declared in LANGUAGES:
        return str(declared)
    notes.append("lang given")
    words = plain(str(declared or "")).split()
    if words and LANGUAGE_NAMES.get(words[0], words[0]) in LANGUAGES:
        return LANGUAGE_NAMES.get(words[0], words[0])
    told = language(texts, SURE)
    if len(texts) >= TELLING and told and told not in LANGUAGES:
        raise Unusable(f"language {told}")
    return nearest_language(texts)


def _turns(row: dict[str, Any], notes: list[str]) -> tuple[list[tuple[str, str]], set[str]]:
    """Returns role and text of each turn, and which keys of the row they came from."""
    if held := next((key for key in LISTS if isinstance(row.get(key), list)), ""):
        used, turns = {held}, [_turn(part, number, notes) for number, part in enumerate(_flat(row[held]))]
    else:
        pair = next((pair for pair in PAIRS if pair[0] in row and pair[1] in row), None)
        if pair is None:
            raise Unusable("no messages")
        extra = "input" if pair[0] == "instruction" else ""
        asked = "\n".join(filter(None, (_words(row[pair[0]], notes), _words(row.get(extra, ""), notes))))
        older = [_turn(part, number, notes) for number, part in enumerate(_flat(row.get("history") or []))]
        turns = [*older, (USER, asked), (ASSISTANT, _words(row[pair[1]], notes))]
        used = {*pair, extra, "history"}
    if held != "messages":
        notes.append("names of the schema")
    if isinstance(row.get("system"), str) and not any(role == SYSTEM for role, _ in turns):
        notes.append("system message put first")
        used, turns = used | {"system"}, [(SYSTEM, _words(row["system"], notes)), *turns]
    return turns, used


def _flat(parts: list[Any]) -> list[Any]:
    """Takes pairs `[question, answer]` apart."""
    return [one for part in parts for one in (part if isinstance(part, list) else [part])]


def _turn(part: Any, number: int, notes: list[str]) -> tuple[str, str]:
    if isinstance(part, str):
        notes.append("names of the schema")
        return (ASSISTANT if number % 2 else USER), _words(part, notes)
    if not isinstance(part, dict):
        raise Unusable("a turn is no text")
    who, what = _first(part, WHO), _first(part, WHAT)
    if not who or not what:
        raise Unusable("a turn without role or text")
    said = part[who]
    bare = "".join(c for c in unicodedata.normalize("NFKD", str(said).casefold()) if c.isalpha())
    if bare not in ROLE_OF:
        raise Unusable("a role of unknown name")
    if said != ROLE_OF[bare] or set(part) != {"role", "content"}:
        notes.append("role names")
    return ROLE_OF[bare], _words(part[what], notes)


def _words(value: Any, notes: list[str]) -> str:
    """Returns a turn's text, mended; a list of text parts is joined."""
    if isinstance(value, list):
        notes.append("parts of a turn joined")
        value = "\n".join(str(part.get("text") or "") if isinstance(part, dict) else str(part) for part in value)
    if not isinstance(value, str):
        notes.append("empty turn" if value is None else "a turn that is no text")
        value = "" if value is None else str(value)
    if (whole := mended(value)) != value:
        notes.append("characters" if re.sub(r"\s", "", whole) != re.sub(r"\s", "", value) else "spaces")
    return whole


def _alternating(turns: Sequence[tuple[str, str]], notes: list[str]) -> list[dict[str, str]]:
    """Returns messages that alternate: empty turns dropped, neighbours of one role joined, ends without answer cut."""
    filled = [(role, text) for role, text in turns if text]
    system = [text for role, text in filled if role == SYSTEM]
    joined: list[dict[str, str]] = []
    for role, text in filled:
        if role == SYSTEM:
            continue
        if joined and joined[-1]["role"] == role:
            joined[-1]["content"] += "\n" + text
        else:
            joined.append({"role": role, "content": text})
    start = 1 if joined and joined[0]["role"] == ASSISTANT else 0
    end = len(joined) - (1 if joined and joined[-1]["role"] == USER else 0)
    if end - start < 2:
        raise Unusable("nothing is answered")
    kept = [{"role": SYSTEM, "content": "\n".join(system)}] * bool(system) + joined[start:end]
    if [(message["role"], message["content"]) for message in kept] != list(turns):
        notes.append("turns made to alternate")
    return kept

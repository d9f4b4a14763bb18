"""How much risk the person's own messages show: nothing, something, or a crisis. Rules over `data/risk_phrases.csv`,
and a trained classifier (`safety.classifier`) that can raise what they say and never lower it.

It misses people. The rules find what is said in words that their table knows, and the classifier what resembles its
messages: much that is veiled, ironic or dry, or in a language other than Spanish and English, passes unseen. It takes a
quotation, a film or a past time for what they look like, and can be wrong both ways. It is no clinical instrument:
never a reason to withhold help, which must stay in reach of everybody all the time.

A phrase of the table counts unless a harmless idiom covers it, a negation or a resolved past reaches it, or a study,
fiction or game is the subject and the person is not. A row marked `sure` decides by itself: of the training messages
that it is in, hardly any are harmless. What the others find is a clue for the classifier, which weighs it with the rest
of the words. Knows nothing of the model, of the page, or of what is shown.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

from safety import classifier
from safety.spelling import fold_pattern, plain
from sentences import Language

Level = Literal["none", "elevated", "crisis"]
Category = Literal[
    "none",
    "suicide",  # wanting to die, a plan, means, a goodbye
    "self_harm",  # hurting oneself without speaking of death
    "harm_to_others",  # wanting or fearing to hurt somebody
    "violence",  # hit, threatened, raped, controlled by somebody
    "abuse",  # sexual abuse by an adult or somebody with power; extortion with images
    "overdose",  # something swallowed, injected or mixed; at a lower level, drinking and using
    "psychosis",  # voices that command, persecution with danger; at a lower level, unusual perceptions
    "eating",  # days without food, purging, fainting
    "third_party",  # somebody else is at risk
    "distress",  # hopelessness, panic, feeling a burden
    "minor",  # the person says that they are under age, and nothing above calls for its own first aid
]


@dataclass(frozen=True)
class Assessment:
    """The state after the last message of a person."""

    level: Level = "none"
    category: Category = "none"
    language: Language | None = None  # nothing when the words do not tell
    minor: bool = False  # that the person said, at any time, that they are under age


@dataclass(frozen=True)
class Hit:
    """A phrase of the table in a message: the level of its row, and the one that it keeps in its place."""

    row: Level
    level: Level
    category: Category
    sure: bool  # that its row hardly ever misleads
    span: tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """What one message says by itself."""

    level: Level
    category: Category
    signals: frozenset[str]
    retracts: bool
    text: str  # in its plain spelling, without idioms and denied phrases: what the classifier reads
    clues: frozenset[str]  # what the table finds in it, said to the classifier


TABLE = Path(__file__).parent.parent / "data" / "risk_phrases.csv"
RANK: dict[Level, int] = {"none": 0, "elevated": 1, "crisis": 2}
# Of several categories in one message, the first here decides which help is shown: what needs the most specific aid.
ORDER: tuple[Category, ...] = (
    "third_party", "overdose", "psychosis", "abuse", "violence", "harm_to_others", "suicide", "eating", "self_harm",
    "minor", "distress",
)  # fmt: skip
MEMORY = 6  # turns for which a loss, being alone or a question about means is remembered
QUIET = 3  # quiet turns after which an elevated state that never was a crisis ends by itself
FEWEST = 4  # words: fewer than these, with no clue among them, say too little to be judged by likeness
LEFT = 5  # words: fewer than these, left beside an idiom or a denied phrase, say nothing by themselves
SURE = "!"  # marks a level's rows that decide by themselves
NEAR = 80  # characters before a phrase where what negates it is looked for
JOINED = 3  # turns that the classifier reads as one text
TAIL = 1000  # characters of that text: earlier ones are read in their own turn
SORROWS = {"loss", "alone", "sorrow"}
YOUNG = {*SORROWS, "trouble"}  # what calls for attention in somebody under age
STOP_WORDS: dict[Language, str] = {
    "es": "que de la el y los se un una por con no me mi es lo para yo estoy muy pero ya tengo quiero",
    "en": "the and to of i is it my that in you not for am was have this do just but with so want",
}


def assess(turns: Sequence[str], *, trained: bool = True) -> Assessment:
    """Returns the state after the last of a person's messages, oldest first.

    The state is sticky: taking it back lowers it by one step, and after a crisis it never is "none" again.
    Without `trained` the rules judge alone.
    """
    state = Assessment(language=_language(turns))
    readings = [_read(turn, trained) for turn in turns]
    floor = 0
    for end in range(1, len(readings) + 1):
        recent = readings[max(0, end - MEMORY) : end]
        level, category = _accumulated(recent)
        if trained and floor == 0:
            level, category = _together(recent, level, category)
        if RANK[level] >= max(RANK[state.level], 1):
            state = Assessment(level, category, state.language)
        elif recent[-1].retracts or (floor == 0 and _is_quiet(recent)):
            state = _lowered(state, floor)
        floor = max(floor, int(state.level == "crisis"))
    minor = any("minor" in reading.signals for reading in readings)
    return Assessment(state.level, _of_minor(state) if minor else state.category, state.language, minor)


def _together(recent: Sequence[Reading], level: Level, category: Category) -> tuple[Level, Category]:
    """Returns a level raised by what the last turns say as one text, back to where something was taken back."""
    last = recent[-JOINED:]
    since = max((place + 1 for place, reading in enumerate(last) if reading.retracts), default=0)
    if len(last) - since < 2:
        return level, category
    said = last[since:]
    clues = frozenset[str]().union(*(reading.clues for reading in said))
    return _raised(level, category, " . ".join(reading.text for reading in said)[-TAIL:], clues)


def evidence(turns: Sequence[str]) -> tuple[str, list[str]]:
    """Returns what the classifier reads of some messages: their text, and what the table finds in it, by name."""
    readings = [_read(turn, trained=False) for turn in turns]
    return " . ".join(reading.text for reading in readings), sorted({clue for one in readings for clue in one.clues})


def sure(turns: Sequence[str]) -> Level:
    """Returns the level that the phrases which decide by themselves give the last of some messages."""
    clean = _without_idioms(f" {plain(turns[-1])}")
    return _most([hit for hit in _hits(clean, _kinds("frame", clean)) if hit.sure])[0]


def _raised(level: Level, category: Category, text: str, found: frozenset[str]) -> tuple[Level, Category]:
    """Returns the classifier's level and category where its level is the higher one."""
    if len(re.findall("[a-z]+", text)) < FEWEST and not found:
        return level, category
    score = classifier.score(text, found)
    rank = 2 if score.crisis > 0 else 1 if score.flagged > 0 else 0
    if rank <= RANK[level]:
        return level, category
    kind = cast(Category, score.category)
    if rank == 2 and kind == "distress":
        kind = "suicide"  # the help for distress alone is not made for a crisis
    return _level(rank), kind


def _level(rank: int) -> Level:
    return next(level for level, value in RANK.items() if value == rank)


def _accumulated(recent: Sequence[Reading]) -> tuple[Level, Category]:
    """Returns the level of the last reading, raised by what the turns before it add up to."""
    last = recent[-1]
    signals = frozenset[str]().union(*(reading.signals for reading in recent))
    if last.level == "crisis" or not last.signals:
        return last.level, last.category
    if "means" in signals and signals & SORROWS:
        return "crisis", "suicide"
    if last.level == "none" and (len(signals & SORROWS) > 1 or ("minor" in signals and signals & YOUNG)):
        return "elevated", "distress"
    return last.level, last.category


def _is_quiet(recent: Sequence[Reading]) -> bool:
    return len(recent) > QUIET and all(reading.level == "none" for reading in recent[-QUIET:])


def _lowered(state: Assessment, floor: int) -> Assessment:
    rank = max(RANK[state.level] - 1, floor)
    return Assessment(_level(rank), state.category if rank else "none", state.language)


def _of_minor(state: Assessment) -> Category:
    return "minor" if state.category in ("none", "suicide", "self_harm", "distress") else state.category


def _read(turn: str, trained: bool) -> Reading:
    """Returns what one message says, whatever came before it."""
    text = f" {plain(turn)}"
    clean = _without_idioms(text)
    retracts, signals, frames = _kinds("retract", text), _kinds("signal", text), _kinds("frame", clean)
    hits = list(_hits(clean, frames))
    found = {"retract": retracts, "signal": signals, "frame": frames, "idiom": {"any"} if clean != text else set()}
    clues = frozenset(f"{sort} {name}" for sort, names in found.items() for name in names)
    clues |= {f"{hit.row} {hit.category}" for hit in hits} | {f"kept {hit.level} {hit.category}" for hit in hits}
    # With the classifier to judge the rest, only the phrases that hardly ever mislead decide by themselves.
    level, category = _most([hit for hit in hits if hit.sure or not trained])
    joke = level == "crisis" and category == "suicide" and "joke" in retracts
    if joke:
        level = "elevated"  # meant as a joke in the same breath: one step down, not out of sight
    if level == "elevated" and category in ("distress", "suicide"):
        signals |= {"sorrow"}
    for hit in hits:
        if hit.level == "none":
            clean = clean[: hit.span[0]] + " " * (hit.span[1] - hit.span[0]) + clean[hit.span[1] :]
    excused = len(clean) < len(text) or any(hit.level == "none" for hit in hits)
    if trained and not joke and not (excused and len(re.findall("[a-z]+", clean)) < LEFT):
        level, category = _raised(level, category, clean, clues)
    return Reading(level, category, signals, bool(retracts), clean, clues)


def _kinds(level: str, text: str) -> frozenset[str]:
    """Returns the kinds of a sort of row that a message has, said and not denied."""
    return frozenset(
        kind
        for kind, pattern in _table()[level].items()
        if any(not _is_denied(text, found) for found in pattern.finditer(text))
    )


def _is_denied(text: str, found: re.Match[str]) -> bool:
    return bool(_table()["before"]["not"].search(text, max(0, found.start() - NEAR), found.start() + 1))


def _without_idioms(text: str) -> str:
    # A comma in its place: an idiom may not join what stands on its two sides, nor hide it.
    for pattern in _table()["none"].values():
        text = pattern.sub(" ,", text)
    return text


def _hits(text: str, frames: frozenset[str]) -> Iterator[Hit]:
    levels: tuple[Level, ...] = ("crisis", "elevated")
    for row in levels:
        for sure in (True, False):
            for category, pattern in _table().get(row + SURE * sure, {}).items():
                for found in pattern.finditer(text):
                    kept = _weight(row, category, text, found, frames)
                    yield Hit(row, kept, cast(Category, category), sure, found.span())


def _most(hits: Sequence[Hit]) -> tuple[Level, Category]:
    """Returns the highest level of some phrases, and which of its categories needs the most specific aid."""
    level: Level = max((hit.level for hit in hits), key=RANK.__getitem__, default="none")
    kinds = (hit.category for hit in hits if hit.level == level != "none")
    return level, min(kinds, key=ORDER.index, default="none")


def _weight(level: Level, category: str, text: str, found: re.Match[str], frames: frozenset[str]) -> Level:
    """Returns the level that a phrase keeps in its place in the message."""
    if _is_denied(text, found) or (category == "harm_to_others" and "game" in frames):
        return "none"
    if frames & {"study", "game"} and not _is_own(text, found):
        return "none"
    past = _table()["before"]["past"].search(text, max(0, found.start() - NEAR), found.start() + 1)
    if not past or "again" in frames:
        return level
    return "none" if "past" in frames else level if "recent" in frames else "elevated"


def _is_own(text: str, found: re.Match[str]) -> bool:
    """Tells whether a phrase is the person's own: outside quotation marks and in the first person."""
    quoted = text[: found.start()].count('"') % 2 == 1
    return not quoted and bool(_table()["frame"]["self"].search(text, max(0, found.start() - NEAR // 3), found.end()))


def _language(turns: Sequence[str]) -> Language | None:
    words = re.findall(r"[a-zñ]+", " ".join(turns).lower())
    counts = {language: sum(map(stop.split().count, words)) for language, stop in STOP_WORDS.items()}
    if counts["en"] == counts["es"]:
        return None
    return "en" if counts["en"] > counts["es"] else "es"


@cache
def _table() -> dict[str, dict[str, re.Pattern[str]]]:
    """Returns one pattern for each level and category. A "word" row names a piece, `<name>` below it."""
    words: dict[str, str] = {}
    grouped: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pattern = re.sub(r"<(\w+)>", lambda found: words[found[1]], row["pattern"])
            if row["level"] == "word":
                words[row["category"]] = pattern
            else:
                grouped[row["level"] + SURE * bool(row["sure"])][row["category"]].append(fold_pattern(pattern))
    return {level: {name: _compiled(level, rows) for name, rows in named.items()} for level, named in grouped.items()}


def _compiled(level: str, rows: Sequence[str]) -> re.Pattern[str]:
    # Words stand one space apart, so a literal space is the fast way to say where a word begins.
    return re.compile(f" (?:{'|'.join(rows)})" + (" $" if level == "before" else r"\b"))

"""The helplines of each country, from `data/helplines.csv`, and the few rules about which may be shown.

A line is shown when two sources agree on it. Nothing here was dialled by us: the table says where each number was read,
and when its sources were last read (`checked`; those of November 2026 stand as its first day).
Knows nothing of who asks, nor of how a line is written on the page.
"""

import csv
import re
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent.parent / "data" / "helplines.csv"
ANYWHERE = "XX"
# These countries have no line that two sources confirm; one source is shown there, and said to be so.
ONE_SOURCE_SHOWN = {"HN", "SV"}
VIOLENCE = re.compile(r"violencia|violence|mujer", re.IGNORECASE)
YOUNG = re.compile(r"niñ|adolescent|jóvenes|child", re.IGNORECASE)
PHONE = re.compile(r"\*?(?:\(\d+\) )?\d[\d .\-]*\d")


@dataclass(frozen=True)
class Helpline:
    """One row of the table, as a person may see it."""

    country: str
    service: str
    phone: str
    text_channel: str
    hours: str  # empty where the sources disagree or only memory vouches for them
    url: str
    unconfirmed: bool

    @property
    def is_for_violence(self) -> bool:
        return bool(VIOLENCE.search(self.service))

    @property
    def is_for_young(self) -> bool:
        return bool(YOUNG.search(self.service))


def helplines(country: str | None) -> tuple[Helpline, ...]:
    """Returns the lines that may be shown in a country (ISO 3166 code, any case), or the international directory."""
    shown = tuple(_line(row) for row in _rows() if row["country_code"] == _code(country) and _may_be_shown(row))
    return shown or helplines(ANYWHERE)


def countries() -> tuple[str, ...]:
    """Returns the codes of the countries in the table, in its order."""
    return tuple(dict.fromkeys(row["country_code"] for row in _rows() if row["country_code"] != ANYWHERE))


def emergency(country: str | None) -> str:
    """Returns the emergency numbers of a country, or "112 / 911" where the country is not known."""
    code = _code(country)
    numbers = next(row["emergency_number"] for row in _rows() if row["country_code"] == code)
    if code == ANYWHERE:
        return "112 / 911"
    return re.sub(r" ?(?:where deployed|in some states)|\bor ", "", numbers)


def unchecked_since(day: date) -> list[str]:
    """Returns country, service and date of each row whose sources were last read before a day."""
    return [
        f"{row['country_code']} {row['service']}: {row['checked']}"
        for row in _rows()
        if date.fromisoformat(row["checked"]) < day
    ]


@cache
def known_numbers() -> frozenset[str]:
    """Returns the digits of every number that the table lets us show."""
    lines = [line for code in (*countries(), ANYWHERE) for line in helplines(code)]
    texts = [text for line in lines for text in (line.phone, line.text_channel)]
    texts += [emergency(code) for code in (*countries(), None)]
    return frozenset(digits(number) for text in texts for number in PHONE.findall(text))


@cache
def known_addresses() -> frozenset[str]:
    """Returns every address that the table lets us show, and its host, without scheme, "www." or a last slash."""
    lines = [line for code in (*countries(), ANYWHERE) for line in helplines(code)]
    addresses = {bare_address(line.url) for line in lines}
    chats = {bare_address(word) for line in lines for word in line.text_channel.split() if "." in word}
    return frozenset(addresses | chats | {address.split("/")[0] for address in addresses})


def digits(number: str) -> str:
    """Returns only the digits of a number as it is written for people."""
    return re.sub(r"\D", "", number)


def bare_address(address: str) -> str:
    """Returns an address as it is compared: no scheme, no "www.", no closing punctuation, small letters."""
    return re.sub(r"^(?:https?://)?(?:www\.)?|[/.,;:!?)]+$", "", address.lower())


def _may_be_shown(row: dict[str, str]) -> bool:
    code, confidence = row["country_code"], row["confidence"]
    one_source_is_enough = code in ONE_SOURCE_SHOWN or code == ANYWHERE
    return confidence == "two_sources" or (confidence == "one_source" and one_source_is_enough)


def _line(row: dict[str, str]) -> Helpline:
    # Notes to ourselves stand in the cells, in English and in brackets; a person gets the plain name.
    service = re.sub(r" \([^)]*(?:also in|from 2\d|directory)[^)]*\)", "", row["service"])
    hours = "" if re.search(r"[(;]|not seen|announced", row["hours"]) else row["hours"]
    text_channel = re.sub(r"\btext ", "SMS ", row["text_channel"]).replace(" to ", " → ")
    only_one = row["confidence"] != "two_sources"
    return Helpline(row["country_code"], service, row["phone"], text_channel, hours, row["url"], only_one)


def _code(country: str | None) -> str:
    code = (country or ANYWHERE).strip().upper()
    return code if code in countries() else ANYWHERE


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))

"""Every sentence that a person can see, by language and key, from `locales/*.json`. Knows nothing of who asks."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

Language = Literal["es", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
FOLDER = Path(__file__).parent / "locales"


@cache
def catalogue(language: Language) -> dict[str, str]:
    """Returns the flat dictionary of a language: key to sentence."""
    return cast(dict[str, str], json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8")))


def say(language: Language, key: str, **values: Any) -> str:
    """Returns one sentence with its values filled in.

    Raises:
        KeyError: the key is in no catalogue, or a value of its sentence is missing.
    """
    return catalogue(language)[key].format(**values)


def preferred(header: str | None, default: Language) -> Language:
    """Returns the first language of an `Accept-Language` header that is ours, or the default.

    The order of the header stands for preference, as every browser sends it.
    """
    for part in (header or "").lower().split(","):
        tag = part.split(";")[0].strip()[:2]
        if tag in LANGUAGES:
            return tag
    return default

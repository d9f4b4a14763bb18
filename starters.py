"""Prompts to begin a conversation with, which the page offers, and their replies: made once, then known.

Nothing else is ever answered from memory. The reply to somebody's own words may say them again, and would have to be
given to another person, or be kept after the conversation that it belonged to.
"""

import threading
from collections import OrderedDict
from functools import cache

from fragments import said
from sentences import LANGUAGES, Language, say

NUMBERS = range(1, 5)
LIMIT = 64  # replies, of some hundred bytes; there are more than prompts where people are answered in two languages


@cache
def _prompts() -> frozenset[str]:
    return frozenset(say(language, f"page.starter.{number}") for language in LANGUAGES for number in NUMBERS)


def is_starter(words: str) -> bool:
    """Tells whether somebody said one of our prompts, exactly."""
    return words in _prompts()


def offered(language: Language) -> str:
    """Returns the prompts as buttons, which the page's script sends."""
    chips = "".join(said(language, "button", f"page.starter.{number}", "type=button class=chip") for number in NUMBERS)
    return f'<div class="chips" role="group" data-label-of="page.starters">{chips}</div>'


class Starters:
    """Replies to the prompts, the longest unused dropped first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._replies: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> str:
        """Returns the reply under a key, or nothing."""
        with self._lock:
            if key in self._replies:
                self._replies.move_to_end(key)
            return self._replies.get(key, "")

    def put(self, key: str, reply: str) -> None:
        """Remembers a reply."""
        with self._lock:
            self._replies[key] = reply
            while len(self._replies) > self._limit:
                self._replies.popitem(last=False)

    def __len__(self) -> int:
        return len(self._replies)

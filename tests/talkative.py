"""The real server with the real model, which never ends a reply by itself: `python -m tests.talkative`.

For tests of what happens in the middle of a reply: those of the embedded model are over within a second or two.
"""

from typing import Any

import app
from model import ChatModel, load


def loaded(*given: Any) -> ChatModel:
    model = load(*given)
    model._ends = frozenset()
    return model


if __name__ == "__main__":
    app.load = loaded  # type: ignore[assignment, attr-defined]
    app.main()

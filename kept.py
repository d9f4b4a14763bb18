"""The named endpoints of what is kept, for `gradio_client`: the rules of `keeping.py`, with types and plain errors.

Who calls is told by a key, which `/consent` makes, or by a login; within one Client the key is needed once, since the
session remembers whose it is. Docstrings are what `view_api` shows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr

from errors import RemansoError
from keeping import Form, told
from session import Session

if TYPE_CHECKING:
    from page import Page

Endpoint = tuple[str, Callable[..., Any], list[Any], Any]


def kept_endpoints(page: "Page") -> list[Endpoint]:
    """Returns name, function, inputs and output of each.

    Where nothing is kept there are two: `/consent` says so, and `/delete` deletes the running conversation.
    """
    api, state = KeptApi(page), page.session
    names = ("id", "key", "words", "title", "word", "text")
    id, key, words, title, word, text = (gr.Textbox("", visible=False, label=name) for name in names)
    yes, up = (gr.Checkbox(visible=False, label=name) for name in ("yes", "up"))
    form = gr.Radio(["md", "json"], value="json", visible=False, label="format")
    data, written = gr.JSON(visible=False, label="result"), gr.Textbox(visible=False, label="export")
    always: list[Endpoint] = [
        ("consent", api.consent, [yes, key, state], data),
        ("delete", api.delete, [id, key, state], data),
    ]
    if not page.keeping.on:
        return always
    return [
        *always,
        ("conversations", api.conversations, [key, state], data),
        ("open", api.open, [id, key, state], data),
        ("rename", api.rename, [id, title, key, state], data),
        ("search", api.search, [words, key, state], data),
        ("import", api.import_, [text, key, state], data),
        ("export_kept", api.export, [form, id, key, state], written),
        ("feedback", api.feedback, [up, word, id, state], data),
    ]


class KeptApi:
    """What the endpoints do."""

    def __init__(self, page: "Page") -> None:
        self._page, self._keeping = page, page.keeping

    def consent(
        self, yes: bool, key: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> dict[str, Any]:
        """Says that the caller's conversations may be kept from now on, the running one with them, or no longer (which
        deletes nothing). Without a key, the first yes makes one: it is in the answer this once, opens what is kept from
        anywhere, and cannot be recovered."""
        with self._explained(session, request):
            owner = self._owner(session, key, profile)
            if yes and not owner and self._keeping.on:
                key = self._keeping.new_key()
                owner = self._keeping.owner(key)
            kept = self._keeping.consent(session, owner, yes) if yes or owner else False
            return {"kept": kept, "key": key.strip(), "days": self._page.settings.history_days}

    def delete(
        self, id: str, key: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> dict[str, Any]:
        """Deletes one kept conversation, or without an id everything of the caller, the consent and the running
        conversation with it. Says how many were deleted, whether it was read again that nothing is left, and what
        remains (`collection`: unreachable copies on the Hub, until it collects them)."""
        with self._explained(session, request):
            return vars(self._keeping.delete(session, self._owner(session, key, profile), id.strip()))

    def conversations(
        self, key: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> list[dict[str, Any]]:
        """Returns the caller's kept conversations, the last changed first: id, title, times (ISO 8601, UTC), count of
        messages."""
        with self._explained(session, request):
            return told(self._keeping.conversations(session, self._owner(session, key, profile)))

    def search(
        self, words: str, key: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> list[dict[str, Any]]:
        """Returns the kept conversations that hold all of these words, whatever their accents and capitals, with an
        excerpt."""
        with self._explained(session, request):
            self._keeping.record(session)
            return told(self._keeping.search(self._owner(session, key, profile), words))

    def open(
        self, id: str, key: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> dict[str, Any]:
        """Opens a kept conversation in this session: `/chat` goes on with it, `/history` returns it."""
        with self._explained(session, request):
            self._keeping.open(session, self._owner(session, key, profile), id.strip())
            return {"conversation": id.strip(), "messages": len(session.conversation.messages)}

    def rename(  # noqa: PLR0913, PLR0917 - Gradio hands over each of them
        self, id: str, title: str, key: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> list[dict[str, Any]]:
        """Gives a kept conversation a title (an empty one brings its first words back), and returns the list."""
        with self._explained(session, request):
            owner = self._owner(session, key, profile)
            self._keeping.rename(session, owner, id.strip(), title)
            return told(self._keeping.conversations(session, owner))

    def import_(
        self, text: str, key: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> list[dict[str, Any]]:
        """Keeps conversations from a JSON export, each as a new one, and returns them."""
        with self._explained(session, request):
            return told(self._keeping.import_(self._owner(session, key, profile), text))

    def export(  # noqa: PLR0913, PLR0917 - Gradio hands over each of them
        self, format: Form, id: str, key: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> str:
        """Returns one kept conversation, or without an id all of them, as Markdown (`md`) to read or JSON (`json`) that
        `/import` reads."""
        with self._explained(session, request):
            owner, language = self._owner(session, key, profile), session.language or self._page.language(request)
            return self._keeping.export(session, owner, id.strip(), format, language)

    def feedback(  # noqa: PLR0913, PLR0917 - Gradio hands over each of them
        self, up: bool, word: str, id: str, session: Session, request: gr.Request, profile: gr.OAuthProfile | None
    ) -> dict[str, Any]:
        """Keeps a thumb up or down, with an optional word, for a reply of the running conversation: the last one, or
        that of this id (see `/history`). Needs the consent."""
        with self._explained(session, request):
            replies = [one.id for one in session.conversation.messages if one.role == "assistant"]
            about = id.strip() or (replies[-1] if replies else "")
            self._keeping.rate(session, self._owner(session, "", profile), about, bool(up), word)
            return {"message": about, "up": bool(up)}

    def _owner(self, session: Session, key: str, profile: gr.OAuthProfile | None) -> str:
        """Returns whose conversations a call is about: the key's, or else the login's, or else the session's."""
        if key.strip():
            return self._keeping.owner(key.strip())
        return self._keeping.owner("", str((profile or {}).get("sub") or "")) or session.shelf.owner

    @contextmanager
    def _explained(self, session: Session, request: gr.Request) -> Iterator[None]:
        """Raises what went wrong as an error in the caller's language."""
        session.language = session.language or self._page.language(request)
        try:
            yield
        except RemansoError as problem:
            raise gr.Error(self._page.chat.explain(session, problem), print_exception=False) from None

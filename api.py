"""The named endpoints, for `gradio_client`: the same conversation rules as the page, with types and plain errors.

A refused message or a failure is raised as an error with its sentence; what was said stays in the session.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr

import safety
from errors import RemansoError
from history import to_json, to_markdown
from kept import kept_endpoints
from session import Session

if TYPE_CHECKING:
    from page import Page


def add_endpoints(page: "Page") -> None:
    """Registers every public endpoint on the page's blocks; `view_api` shows these and no others."""
    api = Api(page)
    text = gr.Textbox(visible=False, label="message")
    reply = gr.Textbox(visible=False, label="reply")
    form = gr.Radio(["md", "json"], value="md", visible=False, label="format")
    country = gr.Textbox("", visible=False, label="country")
    data = gr.JSON(visible=False, label="result")
    state = page.session
    for name, fn, inputs, output in (
        ("chat", api.chat, [text, state], reply),
        ("new", api.new, [state], data),
        ("history", api.history, [state], data),
        ("export", api.export, [form, state], reply),
        ("helplines", api.helplines, [country], data),
        ("health", api.health, [], data),
        *kept_endpoints(page),
    ):
        gr.Button(visible=False).click(
            fn,
            inputs,
            [output],
            api_name=name,
            api_description=fn.__doc__,
            concurrency_limit=None,
            show_progress="hidden",
        )


class Api:
    """What the endpoints do. Docstrings are what `view_api` shows."""

    def __init__(self, page: "Page") -> None:
        self._page = page
        self._chat = page.chat

    async def chat(self, message: str, session: Session, request: gr.Request) -> AsyncGenerator[str, None]:
        """Sends a message and streams the reply so far: an AI answers, no person. A Client keeps its own conversation.
        In a turn with risk the text of the help card is part of the reply, and comes first. Errors say in the caller's
        language (Accept-Language) what is wrong."""
        session.language = session.language or self._page.language(request)
        shown = ""
        try:
            async with aclosing(self._page.keeping.along(session, self._chat.reply(session, message))) as updates:
                async for update in updates:
                    if update.text and update.text != shown:
                        shown = update.text
                        yield shown
        except RemansoError as problem:
            raise gr.Error(self._chat.explain(session, problem), print_exception=False) from None

    def new(self, session: Session) -> dict[str, Any]:
        """Starts a new conversation; the one before is forgotten."""
        self._chat.new(session)
        return {"messages": 0}

    def history(self, session: Session) -> list[dict[str, Any]]:
        """Returns the caller's own messages: role, text, time (ISO 8601, UTC), how each reply ended, and what was
        shown above it."""
        messages: list[dict[str, Any]] = json.loads(to_json(session.conversation))["messages"]
        return messages

    def export(self, format: str, session: Session) -> str:
        """Returns the conversation as Markdown (`md`), to read or take along, or as JSON (`json`)."""
        language = session.language or self._page.settings.default_language
        return to_json(session.conversation) if format == "json" else to_markdown(session.conversation, language)

    def helplines(self, country: str) -> list[dict[str, Any]]:
        """Returns the helplines of a country (two letters, such as ES or MX), or the international directory."""
        return [asdict(line) for line in safety.helplines(country or None)]

    def health(self) -> dict[str, Any]:
        """Returns whether the model is ready, and which one it is."""
        model = self._chat.host.model
        return {"model": "ready" if model else "loading", **(asdict(model.describe()) if model else {})}

"""What goes into the chatbot and comes out of it: messages as the page shows and posts them. Knows no events."""

import html
import json
from collections.abc import AsyncGenerator
from typing import Any

import gradio as gr

from chat import Update
from history import Message
from session import Session

# What opens a tag or an image in what someone wrote is text: it must neither vanish nor draw over the page.
OPENINGS = (("<", "&lt;"), ("![", "!\\["))


def show_tags(bot: gr.Chatbot) -> gr.Chatbot:
    """Makes a chatbot show HTML as the text it is.

    Done on the instance: subclassing a Gradio component writes a stub file beside the module that does it.
    """
    postprocess, preprocess = bot.postprocess, bot.preprocess

    def shown(value: Any) -> Any:
        data = postprocess(value)
        for message in data.root:
            for part in message.content:
                if part.type == "text":
                    for written, shown_as in OPENINGS:
                        part.text = part.text.replace(written, shown_as)
        return data

    def typed(payload: Any) -> Any:
        messages = preprocess(payload)
        for message in messages:
            for part in message["content"]:
                if part["type"] == "text":
                    for written, shown_as in OPENINGS:
                        part["text"] = part["text"].replace(shown_as, written)
        return messages

    bot.postprocess, bot.preprocess = shown, typed
    return bot


def unfinished(session: Session) -> bool:
    messages = session.conversation.messages
    return bool(messages) and messages[-1].finish in ("length", "cancelled") and bool(messages[-1].text)


def turn_of(session: Session, update: Update | None = None) -> str:
    """Tells the page's script what it shows beside the words: times, how replies ended, place in the line."""
    rows = [{"time": message.time.timestamp(), "finish": message.finish} for message in session.conversation.messages]
    wait = {"place": update.place, "loading": update.loading} if update else {}
    return f'<div data-turn="{html.escape(json.dumps({"messages": rows, **wait}))}"></div>'


def pairs(shown: list[Any]) -> list[tuple[str, str]]:
    """Returns role and text of each message that the page posted."""
    return [(str(row.get("role")), _text(row.get("content"))) for row in shown if isinstance(row, dict)]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [part.get("text", "") for part in content or [] if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str))


def rendered(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.shown} for message in messages]


async def frames(session: Session, updates: AsyncGenerator[Update, None]) -> AsyncGenerator[tuple[str, str, Any], None]:
    """Turns updates into what the page shows; only what changed is sent along with the text."""
    told: Any = None
    async for update in updates:
        wait = (update.place, update.loading)
        first, changed = told is None, wait != told
        button = gr.Button(visible=False) if first else gr.skip()
        yield update.text, turn_of(session, update) if changed else gr.skip(), button
        told = wait
    yield session.conversation.messages[-1].shown, turn_of(session), gr.Button(visible=unfinished(session))

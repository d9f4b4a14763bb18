"""What goes into the chatbot and comes out of it: messages as the page shows and posts them. Knows no events."""

import html
import json
from collections.abc import AsyncGenerator
from typing import Any

import gradio as gr

import safety
from history import Message
from session import Session
from speaker import Update

# What opens a tag or an image in what someone wrote is text: it must neither vanish nor draw over the page.
OPENINGS = (("<", "&lt;"), ("![", "!\\["))


def _show_tags() -> None:
    """Makes the chatbot show HTML as the text it is.

    Done to Gradio's class: after an event that skips the chatbot, or changes one of its properties, Gradio builds it
    anew for that session, and what was done to an instance is lost. A class of our own would write a stub file.
    """
    postprocess, preprocess = gr.Chatbot.postprocess, gr.Chatbot.preprocess

    def shown(self: gr.Chatbot, value: Any) -> Any:
        data = postprocess(self, value)
        for message in data.root:
            for part in message.content:
                if part.type == "text":
                    for written, shown_as in OPENINGS:
                        part.text = part.text.replace(written, shown_as)
        return data

    def typed(self: gr.Chatbot, payload: Any) -> Any:
        messages = preprocess(self, payload)
        for message in messages:
            for part in message["content"]:
                if part["type"] == "text":
                    for written, shown_as in OPENINGS:
                        part["text"] = part["text"].replace(shown_as, written)
        return messages

    gr.Chatbot.postprocess, gr.Chatbot.preprocess = shown, typed


_show_tags()


def unfinished(session: Session) -> bool:
    messages = session.conversation.messages
    return bool(messages) and messages[-1].finish in ("length", "cancelled") and bool(messages[-1].text)


def turn_of(session: Session, update: Update | None = None) -> str:
    """Tells the page's script what it shows beside the words: times, how replies ended, help cards, place in the line.

    Help in a reply that still streams counts as that of the message after the last.
    """
    messages = session.conversation.messages
    rows = [{"time": message.time.timestamp(), "finish": message.finish} for message in messages]
    asides = [message.aside for message in messages] + ([update.text] if update else [])
    cards = {number: kind for number, aside in enumerate(asides) if aside and (kind := safety.card_in(aside))}
    wait = {"place": update.place, "loading": update.loading} if update else {}
    country = session.country if session.language else None  # before the page has arrived, nothing is known
    told = {"messages": rows, "cards": cards, "country": country, **wait}
    return f'<div data-turn="{html.escape(json.dumps(told))}"></div>'


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

"""The help around the chat that needs no model and no sign of danger: the panel behind the red button, and the country
whose helplines the cards and the panel show.

What a card says stands in `safety/card.py`, what the exercises say in `fragments.py`. Knows nothing of a turn.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

import notices
import safety
from bubbles import pairs, rendered, turn_of
from fragments import exercises, said, situations
from session import Session

if TYPE_CHECKING:
    from page import Page

# The country that the script under a card was told; the other inputs pass as they are.
TAPPED = "(session, country, shown) => [session, window.remanso?.wished ?? '', shown]"


class Help:
    """Builds the panel inside the page's blocks, and says what its events do."""

    def __init__(self, page: "Page") -> None:
        self._page = page
        words, language = page.words, page.settings.default_language
        with gr.Column(visible=False, elem_id="help") as self.panel:
            with gr.Row(elem_id="help-tools"):
                gr.Button(words("safety.leave"), elem_id="help-leave", size="sm")  # both by assets/leave.js
                self._close = gr.Button(words("page.help_close"), elem_id="help-close", size="sm")
            self.text = gr.Markdown("", elem_id="help-text", container=False)
            self.country = gr.Dropdown(
                safety.countries_by_name(language), value=None, label=words("page.country"), elem_id="country"
            )
            plan = said(language, "a", "page.plan", 'data-page="plan" target="_blank"')
            leaving = said(language, "p", "safety.leave.how", 'class="leaving"')
            gr.HTML(
                f"{exercises(language)}<p>{plan}</p>{situations(language)}{leaving}",
                elem_id="help-more",
                apply_default_css=False,
            )

    def events(self, quiet: dict[str, Any]) -> None:
        """Wires the panel, once the conversation that it may change is there."""
        page = self._page
        # Not under its own name, which is that of an endpoint.
        panel = [self.panel, self.text, self.country]
        page.help_now.click(self.open, [page.session], panel, api_name="help", **quiet)
        self._close.click(lambda: gr.Column(visible=False), None, [self.panel], **quiet)
        moving: dict[str, Any] = {
            "fn": self.move,
            "outputs": [self.text, self.country, page.bot, page.turn, page.interface.chatbot_state],
            **quiet,
        }
        self.country.input(inputs=[page.session, self.country, page.bot], **moving)
        tapped = gr.Textbox(visible=False)
        button = gr.Button(visible="hidden", elem_id="in-country")
        button.click(inputs=[page.session, tapped, page.bot], js=TAPPED, **moving)

    def open(self, session: Session) -> tuple[Any, ...]:
        self._page.chat.counters.add("help")
        return gr.Column(visible=True), *self.words(session)

    def words(self, session: Session) -> tuple[str, Any]:
        """Returns the panel's text and its countries, in a session's language and for its country."""
        language = session.language or self._page.settings.default_language
        text = safety.help_panel(language, session.country or None)
        return text, gr.Dropdown(choices=safety.countries_by_name(language), value=session.country or None)

    def move(self, session: Session, country: str | None, shown: list[Any]) -> tuple[Any, ...]:
        """Shows the helplines of another country, in the panel and in the cards that are there already.

        While a reply streams, the conversation is its alone: the cards in it then change with the next choice.
        """
        session.country = country if country in safety.countries() else ""
        if session.busy:
            return *self.words(session), *[gr.skip()] * 3
        session.conversation.keep(pairs(shown))
        session.conversation.messages = [
            replace(message, aside=notices.moved(message.aside, session.country or None))
            for message in session.conversation.messages
        ]
        bubbles = rendered(session.conversation.messages)
        return *self.words(session), bubbles, turn_of(session), bubbles

"""The page: one `gr.ChatInterface`, what stands around it, and what each event does.

Layout and wiring alone; what a turn is stands in `chat.py`, what the endpoints do in `api.py`.
"""

import asyncio
import html
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import gradio as gr

import safety
from api import add_endpoints
from bubbles import frames, pairs, rendered, turn_of, unfinished
from chat import Chat
from config import EMBEDDED, Settings
from drawer import Drawer
from edge import COOKIE
from errors import RemansoError
from fragments import said
from help import Help
from keeping import Keeping
from model.loader import model_id
from papers import LINKED
from sentences import LANGUAGES, Language, catalogue, preferred, say
from session import Session
from starters import offered
from visits import Visits
from wiring import QUIET, Wiring

SETTLE_SECONDS = 3.0
BEGAN = "() => ['', ...(window.remanso?.{0}() ?? ['', '', ''])]"  # the first input is the session, which stays here


class Page:
    """Builds the blocks around one `Chat`, and holds the components that events need."""

    def __init__(self, chat: Chat, settings: Settings, visits: Visits, keeping: Keeping) -> None:
        self.chat = chat
        self.keeping = keeping
        self.visits = visits
        self.settings = settings
        self.words = gr.I18n(**{language: catalogue(language) for language in LANGUAGES})
        with gr.Blocks(
            title=settings.title or say(settings.default_language, "page.title"),
            fill_height=True,
            analytics_enabled=False,
        ) as self.blocks:
            self.session = gr.State(Session())
            self.drawer = Drawer(self, keeping) if keeping.on else None
            self._header()
            self.help = Help(self)
            if self.drawer:
                self.drawer.panel()
            self._conversation()
            self._events()
            self.wiring.recover(self._idle_box, self._copied)
            add_endpoints(self)

    # --- layout

    def _header(self) -> None:
        own, language = self.settings.title, self.settings.default_language
        title = f"<h1>{html.escape(own)}</h1>" if own else said(language, "h1", "page.title")
        gr.HTML(
            f"<header><div>{title}{said(language, 'p', 'page.subtitle')}</div>"
            '<p id="status" role="status" data-state="connected"></p></header>'
            + said(language, "p", "page.restarted", 'id="notice-restart" role="alert" hidden'),
            elem_id="header",
            apply_default_css=False,
        )
        with gr.Row(elem_id="tools"):
            t = self.words
            self.help_now = gr.Button(t("page.help_now"), variant="stop", elem_id="help-now", size="sm")
            gr.Button(t("safety.leave"), elem_id="leave", size="sm")  # the script shows it where there is violence
            self.new = gr.Button(t("page.new"), elem_id="new", size="sm")
            self.switch = gr.Button(t("page.switch"), elem_id="switch", size="sm")
            if self.drawer:
                self.drawer.button()
        if model_id(self.settings) == EMBEDDED:
            gr.Markdown(self.words("page.demo"), elem_id="demo", container=False)

    def _conversation(self) -> None:
        t = self.words
        self.turn = gr.HTML(turn_of(Session()), elem_id="turn", apply_default_css=False)
        self.go_on = gr.Button(t("page.continue"), visible=False, elem_id="go-on", size="sm", render=False)
        self.bot = gr.Chatbot(
            elem_id="chat",
            label=t("page.conversation"),
            show_label=False,
            placeholder=t("kept.welcome" if self.drawer else "page.welcome"),
            buttons=["copy"],
            height="100%",
            min_height=200,
            scale=1,
            allow_tags=True,
            latex_delimiters=[],
            feedback_options=[],
            layout="bubble",
            editable="user",
            group_consecutive_messages=False,
        )
        self.box = gr.Textbox(
            elem_id="message",
            label=t("page.message"),
            placeholder=t("page.placeholder"),
            show_label=False,
            submit_btn=True,
            stop_btn=True,
            max_lines=8,
            autofocus=True,
            scale=7,
        )
        self.interface = gr.ChatInterface(
            self._respond,
            chatbot=self.bot,
            textbox=self.box,
            additional_inputs=[self.session],
            additional_outputs=[self.turn, self.go_on],
            editable=True,
            validator=self._validate,
            concurrency_limit=None,
            show_progress="hidden",
            flagging_mode="never",
            api_visibility="private",  # `/chat` is ours, with types and its errors: see api.py
        )
        self.go_on.render()
        gr.HTML(offered(self.settings.default_language), elem_id="starters", apply_default_css=False)
        # In a tab of their own, so that the conversation stays; the script gives them the address and its language.
        language = self.settings.default_language
        links = [said(language, "a", f"page.{name}", f'data-page="{name}" target="_blank"') for name in LINKED]
        reminder = said(language, "p", "page.reminder") + f"<p>{' · '.join(links)}</p>"
        gr.HTML(reminder, elem_id="reminder", apply_default_css=False)

    # --- events

    def _events(self) -> None:
        began, region, before = (gr.Textbox(visible=False) for _ in range(3))
        self.switch.click(
            self._begin,
            [self.session, began, region],
            [self.help.text, self.help.country],
            js=BEGAN.format("switch"),
            **QUIET,
        )
        self.help.events(QUIET)
        self.wiring = Wiring(self.blocks, self.interface)
        self.wiring.copy_with(self._copied)
        state = self.interface.chatbot_state
        arrived = self.blocks.load(
            self._arrive,
            [self.session, began, region, before],
            [self.bot, self.turn, self.go_on, state],
            js=BEGAN.format("arrived"),
            **QUIET,
        )
        self.bot.edit(self._streaming_box, None, [self.box, self.go_on], **QUIET)
        continuing = self.go_on.click(self._streaming_box, None, [self.box, self.go_on], **QUIET).then(
            self._go_on,
            [self.session, self.bot],
            [self.bot, self.turn, self.go_on],
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="undocumented",
        )
        continuing.then(self._copied, [self.bot], [state], **QUIET).then(self._idle_box, None, [self.box], **QUIET)
        replies = [continuing, *self.wiring.replies()]
        self.box.stop(None, None, None, cancels=replies, api_visibility="undocumented")
        stopped = self.box.stop(self._settle, [self.session], [self.turn, self.go_on], **QUIET)
        emptied = [self.bot, self.turn, self.go_on, state]
        new = self.new.click(self._new, [self.session], emptied, cancels=replies, **QUIET)
        new.then(self._still_empty, [self.session], [self.bot, self.box], **QUIET)
        cleared = self.bot.clear(self._new, [self.session], emptied, **QUIET)
        resync = gr.Button(visible="hidden", elem_id="resync")
        resync.click(self._copied, [self.bot], [state], **QUIET)
        if self.drawer:
            self.drawer.events(arrived, QUIET)
            undone = [
                event.then(self.drawer.undone, [self.session, self.bot], None, **QUIET) for event in self.wiring.undos()
            ]
            self.drawer.follow([*replies, stopped, new, cleared, *undone], QUIET)

    # --- what the events do

    def _begin(self, session: Session, language: str, region: str, request: gr.Request) -> tuple[str, Any]:
        session.language = language if language in LANGUAGES else self.language(request)
        if not session.country:
            session.country = region if region in safety.countries() else self.settings.default_country
        return self.help.words(session)

    def _arrive(
        self, session: Session, language: str, region: str, before: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """Begins a visit; a page that was loaded again (Gradio does so after a lost connection) finds its chat."""
        self._begin(session, language, region, request)
        cookie = request.cookies.get(COOKIE, "")
        known = self.session_of(before) if cookie and self.visits.belongs(before, cookie) else None
        if known is not None and known is not session and not session.conversation.messages:
            session.take_over(known)
        shown = rendered(session.conversation.messages)
        return shown, turn_of(session), gr.Button(visible=unfinished(session)), shown

    def language(self, request: gr.Request) -> Language:
        """Returns the language that a request asks for, or the default."""
        return preferred(request.headers.get("accept-language"), self.settings.default_language)

    def _validate(self, words: str, request: gr.Request) -> Any:
        session = self.session_of(request.session_hash or "") or Session(language=self.language(request))
        try:
            self.chat.check(session, words)
        except RemansoError as refused:
            return gr.validate(False, self.chat.explain(session, refused))
        return gr.validate(True, "")

    def session_of(self, name: str) -> Session | None:
        """Returns the session behind Gradio's session hash, if there is one."""
        holder = getattr(self.blocks, "state_holder", None)
        if holder is None or name not in holder:
            return None
        return cast(Session, holder[name][self.session._id])

    async def _respond(
        self, words: str, shown: list[Any], session: Session
    ) -> AsyncGenerator[tuple[str, str, Any], None]:
        """Streams the reply into the page. Never raises: an exception would leave Gradio's page unusable."""
        session.touch(pairs(shown))
        before = len(session.conversation.messages)
        try:
            async with aclosing(self.keeping.along(session, self.chat.reply(session, words))) as updates:
                async for text, turn, button in frames(session, updates):
                    yield text, turn, button
        except RemansoError as problem:
            if len(session.conversation.messages) == before:
                self.chat.note_refusal(session, words, problem)
            yield session.conversation.messages[-1].shown, turn_of(session), gr.Button(visible=False)

    async def _go_on(self, session: Session, shown: list[Any]) -> AsyncGenerator[tuple[list[Any], str, Any], None]:
        session.touch(pairs(shown))
        before = rendered(session.conversation.messages[:-1])
        try:
            async with aclosing(self.keeping.along(session, self.chat.go_on(session))) as updates:
                async for text, turn, button in frames(session, updates):
                    yield [*before, {"role": "assistant", "content": text}], turn, button
        except RemansoError:
            yield rendered(session.conversation.messages), turn_of(session), gr.Button(visible=False)

    async def _settle(self, session: Session) -> tuple[str, Any]:
        """After Stop: waits until the turn is recorded, then shows how it ended."""
        await self._turn_over(session)
        return turn_of(session), gr.Button(visible=unfinished(session))

    async def _turn_over(self, session: Session) -> None:
        """Waits until a turn that was cancelled is recorded where it belongs."""
        for _ in range(int(SETTLE_SECONDS / 0.05)):
            if not session.busy:
                break
            await asyncio.sleep(0.05)

    async def _new(self, session: Session) -> tuple[Any, ...]:
        await self._turn_over(session)
        self.chat.new(session)
        return [], turn_of(session), gr.Button(visible=False), []

    def _still_empty(self, session: Session) -> tuple[Any, Any]:
        """Clears the bubbles again: words of a reply that was under way may have arrived after the first time."""
        return [] if session.is_new else gr.skip(), self._idle_box()

    def _copied(self, shown: list[Any], request: gr.Request) -> list[Any]:
        """Returns what the next message posts of the bubbles; those that await their clearing are none."""
        session = self.session_of(request.session_hash or "")
        return [] if session and session.is_new else shown

    def _streaming_box(self) -> tuple[Any, Any]:
        return gr.Textbox(interactive=False, submit_btn=False, stop_btn=True), gr.Button(visible=False)

    def _idle_box(self) -> Any:
        return gr.Textbox(interactive=True, submit_btn=True, stop_btn=False)

    def forget(self, name: str) -> bool:
        """Drops everything that the server holds of a session that was left, and returns whether it did.

        In the middle of a turn it does not: Gradio would make the session anew, and nobody would know of that one.
        """
        if session := self.session_of(name):
            if session.busy:
                return False
            self.chat.forget(session)
        self.blocks.state_holder.session_data.pop(name, None)
        self.blocks.state_holder.time_last_used.pop(name, None)
        return True

"""The page: one `gr.ChatInterface`, its events and named endpoints, and how it is served.

Layout and wiring alone; what a turn is stands in `chat.py`, what the endpoints do in `api.py`.
"""

import asyncio
import html
import json
import logging
import os
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import spaces  # noqa: F401 - on ZeroGPU it patches CUDA, and must come before torch

# isort: split
import gradio as gr
from gradio.events import Dependency
from starlette.middleware import Middleware

import safety
from api import add_endpoints
from chat import Chat, Session, Update
from config import EMBEDDED, Settings, read_settings
from edge import COOKIE, Edge
from errors import RemansoError
from history import Message
from model import load, zerogpu
from model.host import Host
from model.loader import model_id
from sentences import LANGUAGES, Language, catalogue, preferred, say
from visits import Visits

HERE = Path(__file__).parent
ASSETS = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
BOOT = secrets.token_hex(8)  # tells an open page that the server it knew is gone
MAX_THREADS = 256  # Gradio's own 40 would also bound how many replies stream at once
SETTLE_SECONDS = 3.0
BEGAN = "() => ['', ...(window.remanso?.{0}() ?? ['', '', ''])]"  # the first input is the session, which stays here
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "undocumented"}

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


class Page:
    """Builds the blocks around one `Chat`, and holds the components that events need."""

    def __init__(self, chat: Chat, settings: Settings, visits: Visits) -> None:
        self.chat = chat
        self.visits = visits
        self.settings = settings
        self.words = gr.I18n(**{language: catalogue(language) for language in LANGUAGES})
        with gr.Blocks(
            title=settings.title or say(settings.default_language, "page.title"),
            fill_height=True,
            analytics_enabled=False,
        ) as self.blocks:
            self.session = gr.State(Session())
            self._header()
            self._help()
            self._conversation()
            self._events()
            add_endpoints(self)
        self._recover()

    # --- layout

    def _header(self) -> None:
        title = (
            f"<h1>{html.escape(self.settings.title)}</h1>" if self.settings.title else '<h1 data-say="page.title"></h1>'
        )
        gr.HTML(
            f'<header><div>{title}<p data-say="page.subtitle"></p></div>'
            '<p id="status" role="status" data-state="connected"></p></header>'
            '<p id="notice-restart" role="alert" data-say="page.restarted" hidden></p>',
            elem_id="header",
            apply_default_css=False,
        )
        with gr.Row(elem_id="tools"):
            t = self.words
            self.help_now = gr.Button(t("page.help_now"), variant="stop", elem_id="help-now", size="sm")
            self.new = gr.Button(t("page.new"), elem_id="new", size="sm")
            self.switch = gr.Button(t("page.switch"), elem_id="switch", size="sm")
        if model_id(self.settings) == EMBEDDED:
            gr.Markdown(self.words("page.demo"), elem_id="demo", container=False)

    def _help(self) -> None:
        with gr.Group(visible=False, elem_id="help") as self.help:
            self.help_text = gr.Markdown("", elem_id="help-text", container=False)
            self.country = gr.Dropdown(
                safety.countries_by_name(), value=None, label=self.words("page.country"), elem_id="country"
            )
            self.help_close = gr.Button(self.words("page.help_close"), size="sm", elem_id="help-close")

    def _conversation(self) -> None:
        t = self.words
        self.turn = gr.HTML(_turn(Session()), elem_id="turn", apply_default_css=False)
        self.go_on = gr.Button(t("page.continue"), visible=False, elem_id="go-on", size="sm", render=False)
        self.bot = gr.Chatbot(
            elem_id="chat",
            label=t("page.conversation"),
            show_label=False,
            placeholder=t("page.welcome"),
            buttons=["copy"],
            height="100%",
            min_height=200,
            scale=1,
            allow_tags=True,
            latex_delimiters=[],
            feedback_options=None,
            layout="bubble",
            editable="user",
            group_consecutive_messages=False,
        )
        show_tags(self.bot)
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
        gr.HTML('<p data-say="page.reminder"></p>', elem_id="reminder", apply_default_css=False)

    # --- events

    def _events(self) -> None:
        began, region, before = (gr.Textbox(visible=False) for _ in range(3))
        self.switch.click(
            self._begin, [self.session, began, region], [self.help_text], js=BEGAN.format("switch"), **QUIET
        )
        self.help_now.click(self._open_help, [self.session], [self.help, self.help_text, self.country], **QUIET)
        self.country.input(self._in_country, [self.session, self.country], [self.help_text], **QUIET)
        self.help_close.click(lambda: gr.Group(visible=False), None, [self.help], **QUIET)
        state = [self.interface.chatbot_state, self.interface.chatbot_value]
        self.blocks.load(
            self._arrive,
            [self.session, began, region, before],
            [self.bot, self.turn, self.go_on, *state],
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
        continuing.then(lambda shown: (shown, shown), [self.bot], state, **QUIET).then(
            self._idle_box, None, [self.box], **QUIET
        )
        replies = [continuing, *self._replies()]
        self.box.stop(None, None, None, cancels=replies, api_visibility="undocumented")
        self.box.stop(self._settle, [self.session], [self.turn, self.go_on], **QUIET)
        emptied = [self.bot, self.turn, self.go_on, *state]
        self.new.click(self._new, [self.session], emptied, cancels=replies, **QUIET).then(
            self._idle_box, None, [self.box], **QUIET
        )
        self.bot.clear(self._new, [self.session], emptied, **QUIET)
        resync = gr.Button(visible="hidden", elem_id="resync")
        resync.click(lambda shown: (shown, shown), [self.bot], state, **QUIET)

    def _replies(self) -> list[Dependency]:
        """Returns the interface's own events that stream a reply."""
        return [
            Dependency(None, fn.get_config(), fn._id, fn.fn)
            for fn in self.blocks.fns.values()
            if getattr(fn.fn, "__name__", "") == "_submit_fn"
        ]

    def _recover(self) -> None:
        """Gives the box back after an event that failed.

        In Gradio 6 `.then` does not run after a failure, and the interface re-enables its box with `.then`: without
        this, one failed event (a full queue, a lost connection) would close the page for good.
        """
        with self.blocks:
            for reply in self._replies():
                reply.then(self._idle_box, None, [self.box], **QUIET)
                reply.failure(self._idle_box, None, [self.box], **QUIET)
                reply.failure(
                    lambda shown: (shown, shown),
                    [self.bot],
                    [self.interface.chatbot_state, self.interface.chatbot_value],
                    **QUIET,
                )

    # --- what the events do

    def _begin(self, session: Session, language: str, region: str, request: gr.Request) -> str:
        session.language = language if language in LANGUAGES else self.language(request)
        if region and not session.country:
            session.country = region if region in safety.countries() else self.settings.default_country
        return self._help_of(session)

    def _arrive(
        self, session: Session, language: str, region: str, before: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """Begins a visit; a page that was loaded again (Gradio does so after a lost connection) finds its chat."""
        self._begin(session, language, region, request)
        cookie = request.cookies.get(COOKIE, "")
        known = self.session_of(before) if cookie and self.visits.belongs(before, cookie) else None
        if known is not None and known is not session and not session.conversation.messages:
            session.take_over(known)
        shown = _rendered(session.conversation.messages)
        return shown, _turn(session), gr.Button(visible=_unfinished(session)), shown, shown

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
        session.conversation.keep(_pairs(shown))
        try:
            async with aclosing(self.chat.reply(session, words)) as updates:
                async for text, turn, button in _frames(session, updates):
                    yield text, turn, button
        except RemansoError as problem:
            if session.conversation.said("user")[-1:] != [words.strip()]:
                self.chat.note_refusal(session, words, problem)
            yield session.conversation.messages[-1].shown, _turn(session), gr.Button(visible=False)

    async def _go_on(self, session: Session, shown: list[Any]) -> AsyncGenerator[tuple[list[Any], str, Any], None]:
        session.conversation.keep(_pairs(shown))
        before = _rendered(session.conversation.messages[:-1])
        try:
            async with aclosing(self.chat.go_on(session)) as updates:
                async for text, turn, button in _frames(session, updates):
                    yield [*before, {"role": "assistant", "content": text}], turn, button
        except RemansoError:
            yield _rendered(session.conversation.messages), _turn(session), gr.Button(visible=False)

    async def _settle(self, session: Session) -> tuple[str, Any]:
        """After Stop: waits until the turn is recorded, then shows how it ended."""
        for _ in range(int(SETTLE_SECONDS / 0.05)):
            if not session.busy:
                break
            await asyncio.sleep(0.05)
        return _turn(session), gr.Button(visible=_unfinished(session))

    def _new(self, session: Session) -> tuple[Any, ...]:
        self.chat.new(session)
        return [], _turn(session), gr.Button(visible=False), [], []

    def _open_help(self, session: Session) -> tuple[Any, ...]:
        return gr.Group(visible=True), self._help_of(session), gr.Dropdown(value=session.country or None)

    def _in_country(self, session: Session, country: str | None) -> str:
        session.country = country or ""
        return self._help_of(session)

    def _help_of(self, session: Session) -> str:
        return safety.help_panel(session.language or self.settings.default_language, session.country or None)

    def _streaming_box(self) -> tuple[Any, Any]:
        return gr.Textbox(interactive=False, submit_btn=False, stop_btn=True), gr.Button(visible=False)

    def _idle_box(self) -> Any:
        return gr.Textbox(interactive=True, submit_btn=True, stop_btn=False)

    def forget(self, name: str) -> None:
        """Drops everything that the server holds of a session that was left."""
        if session := self.session_of(name):
            self.chat.forget(session)
        self.blocks.state_holder.session_data.pop(name, None)
        self.blocks.state_holder.time_last_used.pop(name, None)


async def _frames(
    session: Session, updates: AsyncGenerator[Update, None]
) -> AsyncGenerator[tuple[str, str, Any], None]:
    """Turns updates into what the page shows; only what changed is sent along with the text."""
    told: Any = None
    async for update in updates:
        wait = (update.place, update.loading)
        first, changed = told is None, wait != told
        button = gr.Button(visible=False) if first else gr.skip()
        yield update.text, _turn(session, update) if changed else gr.skip(), button
        told = wait
    yield session.conversation.messages[-1].shown, _turn(session), gr.Button(visible=_unfinished(session))


def _unfinished(session: Session) -> bool:
    messages = session.conversation.messages
    return bool(messages) and messages[-1].finish in ("length", "cancelled") and bool(messages[-1].text)


def _turn(session: Session, update: Update | None = None) -> str:
    """Tells the page's script what it shows beside the words: times, how replies ended, place in the line."""
    rows = [{"time": message.time.timestamp(), "finish": message.finish} for message in session.conversation.messages]
    wait = {"place": update.place, "loading": update.loading} if update else {}
    return f'<div data-turn="{html.escape(json.dumps({"messages": rows, **wait}))}"></div>'


def _pairs(shown: list[Any]) -> list[tuple[str, str]]:
    """Returns role and text of each message that the page posted."""
    return [(str(row.get("role")), _text(row.get("content"))) for row in shown if isinstance(row, dict)]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [part.get("text", "") for part in content or [] if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str))


def _rendered(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.shown} for message in messages]


# --- serving


def head(root: str = "./") -> str:
    """Returns the page's script."""
    core = next(ASSETS.glob("core-*.js")).name
    page_words = {
        language: {key: text for key, text in catalogue(language).items() if key.startswith("page.")}
        for language in LANGUAGES
    }
    values = {
        "__CATALOGUE__": json.dumps(page_words, ensure_ascii=False).replace("<", "\\u003c"),
        "__CORE_MODULE__": f"{root}assets/{core}",
        "__ROOT__": root,
    }
    return f"<script>{_script('page.js', values)}</script>"


def _script(name: str, values: dict[str, str]) -> str:
    text = (HERE / "page" / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def health(host: Host) -> dict[str, Any]:
    """Returns whether the model answers, and this process's id."""
    state = "ready" if host.model else "failed" if host.error else "loading"
    return {"status": "ok", "model": state, "boot": BOOT, **({"error": host.error.code} if host.error else {})}


def serve(settings: Settings, host: Host | None = None) -> tuple[Page, str]:
    """Starts the server and the loading of the model, and returns the page and its address at once.

    Raises:
        OSError: the port is taken.
    """
    host = host or Host(lambda progress: load(settings, progress))
    if zerogpu.ON:
        host.load()  # before the launch, which packs the weights, and in the main thread, whose CUDA is emulated
    chat = Chat(settings, host)
    visits = Visits(settings.session_grace_seconds)
    page = Page(chat, settings, visits)
    page.blocks.queue(default_concurrency_limit=None, max_size=settings.queue_size * 8)
    _, address, _ = page.blocks.launch(
        server_name=settings.gradio_server_name,
        server_port=settings.gradio_server_port,  # a given port that is taken is an error: Gradio takes the next one
        prevent_thread_lock=True,
        quiet=True,
        max_threads=MAX_THREADS,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size=1,
        mcp_server=False,
        i18n=page.words,
        head=head(),
        css_paths=HERE / "page/page.css",
        favicon_path=HERE / "page/favicon.svg",
        theme=gr.themes.Soft(primary_hue="teal", neutral_hue="slate"),
        app_kwargs={
            "middleware": [
                Middleware(
                    Edge,
                    visits=visits,
                    frames=settings.frame_ancestors,
                    default=settings.default_language,
                    health=lambda: health(host),
                    script=_script("head.js", {"__DEFAULT_LANGUAGE__": settings.default_language}),
                    embed=f"assets/{next(ASSETS.glob('index-*.js')).name}",
                )
            ],
            "openapi_url": None,
            "docs_url": None,
            "redoc_url": None,
        },
    )
    visits.sweep(page.forget)
    host.start()
    return page, address


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for noisy in ("httpx", "httpx2", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)  # their lines hold session hashes
    settings = read_settings()
    try:
        page, address = serve(settings)
    except OSError as problem:
        sys.exit(f"The server cannot start: {problem}")
    print(f"\n  Remanso: {address}\n", flush=True)
    page.blocks.block_thread()


if __name__ == "__main__":
    main()

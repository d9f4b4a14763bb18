"""What the page shows of what is kept: a button, a panel that the script `assets/keeping.js` draws, and their events.

The script asks with one small JSON object (`{"do": "open", "key": …, "id": …}`) and gets one back; what a person reads
there is the script's, from the catalogue. The person's key comes with each question and is not held here. What a
question does stands in `keeping.py`.
"""

import html
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr
from gradio.events import Dependency

from bubbles import pairs, rendered, turn_of, unfinished
from errors import RemansoError
from fragments import said
from history import Rating, Receipt
from keeping import Form, Keeping, standing, told
from session import Session

if TYPE_CHECKING:
    from page import Page

THUMBS = ["Like", "Dislike"]  # Gradio's own names, which draw its thumbs
ASKING = "(session, _, shown) => [session, window.remanso?.wish?.() ?? '', shown]"
ARRIVING = "(session, _, shown) => [session, window.remanso?.came?.() ?? '', shown]"
ANSWERED = "(answer) => window.remanso?.answered?.(answer)"
FAILED = "() => window.remanso?.answered?.('')"
CONSENTING = ("arrive", "consent")  # what may change whether there is a consent, and leaves the conversation
Action = dict[str, Any]


class Drawer:
    """Builds the button and the panel inside the page's blocks, and answers the script."""

    def __init__(self, page: "Page", keeping: Keeping) -> None:
        self._page, self._keeping, self._settings = page, keeping, page.settings
        self._does: dict[str, Callable[[Session, str, Action], Action]] = {
            "arrive": self._arrive,
            "told": self._told,
            "consent": self._consent,
            "list": self._list,
            "search": self._search,
            "open": self._open,
            "rename": self._rename,
            "export": self._export,
            "import": self._import,
            "rate": self._rate,
            "delete": self._delete,
            "forget": self._forget,
        }

    # --- layout

    def button(self) -> None:
        """Adds the button, in a row of the page's."""
        label = said(self._settings.default_language, "button", "kept.save", 'id="keep" type="button" hidden')
        gr.HTML(label, elem_id="keep-row", apply_default_css=False)

    def panel(self) -> None:
        """Adds the panel, which is empty until the script fills it, and what the two speak through."""
        facts = {
            "days": self._settings.history_days,
            "place": _place(self._settings.history_url),
            "sealed": bool(self._settings.history_key.strip()),
            "login": bool(os.environ.get("OAUTH_CLIENT_ID")),
        }
        gr.HTML(
            f'<section id="kept" tabindex="-1" data-facts="{html.escape(json.dumps(facts))}" hidden></section>'
            '<p id="kept-offer"></p><p id="kept-now" role="status"></p>',
            elem_id="keeping",
            apply_default_css=False,
        )
        if facts["login"]:  # adds Gradio's routes of the login, which the panel's own button opens
            gr.LoginButton(visible=False)

    def events(self, arrived: Dependency, quiet: dict[str, Any]) -> None:
        """Wires the panel, once the page's own events are there."""
        page = self._page
        wish = gr.Textbox(visible=False)
        self._answer = gr.Textbox(visible=False)
        changed = [page.bot, page.turn, page.go_on, page.interface.chatbot_state]
        asking: dict[str, Any] = {
            "fn": self.act,
            "inputs": [page.session, wish, page.bot],
            "outputs": [self._answer, *changed],
            **quiet,
        }
        button = gr.Button(visible="hidden", elem_id="keeping-ask")
        for event in (button.click(js=ASKING, **asking), arrived.then(js=ARRIVING, **asking)):
            event.then(None, [self._answer], None, js=ANSWERED)
            event.failure(None, None, None, js=FAILED)
        page.bot.like(self._liked, [page.session], [self._answer], **quiet).then(
            None, [self._answer], None, js=ANSWERED
        )

    def follow(self, events: list[Dependency], quiet: dict[str, Any]) -> None:
        """Tells the script after each of these events how the conversation is kept."""
        for event in events:
            event.then(self._standing, [self._page.session], [self._answer], **quiet).then(
                None, [self._answer], None, js=ANSWERED
            )

    def undone(self, session: Session, shown: list[Any]) -> None:
        """After undo: what the page has no more is kept no more."""
        if not session.busy:
            session.conversation.keep(pairs(shown))
            self._keeping.note(session)

    # --- what the script asks for

    def act(
        self,
        session: Session,
        wish: str,
        shown: list[Any],
        request: gr.Request,
        profile: gr.OAuthProfile | None,
    ) -> tuple[Any, ...]:
        """Does what the script asks. Never raises: what went wrong is part of the answer."""
        session.language = session.language or self._page.language(request)
        before, action = session.conversation, Action()
        try:
            action = _asked(wish)
            login = str((profile or {}).get("sub") or "")
            owner = self._keeping.owner(str(action.get("key") or ""), login)
            does = self._does.get(str(action.get("do")))
            answer = does(session, owner, {**action, "shown": shown}) if does else {}
            if profile and login:
                answer["name"] = str(profile.get("preferred_username") or "")
        except RemansoError as problem:
            answer = {"error": self._page.chat.explain(session, problem), "code": problem.code}
        ratings = answer.pop("ratings", {})
        told = {"did": action.get("do"), "number": action.get("number"), **answer}
        if session.conversation is not before:
            return json.dumps(told), *self._painted(session, ratings)
        thumbs = gr.update(feedback_options=self._thumbs(answer)) if told["did"] in CONSENTING else gr.skip()
        return json.dumps(told), thumbs, *[gr.skip()] * 3

    def _arrive(self, session: Session, owner: str, action: Action) -> Action:
        self._keeping.arrive(session, owner, str(action.get("conversation") or ""), pairs(action["shown"]))
        found = self._keeping.conversations(session, owner) if self._keeping.consents(owner) else []
        return {**self._told(session, owner, action), "last": told(found[:1])}

    def _told(self, session: Session, owner: str, _action: Action) -> Action:
        self._keeping.record(session)
        return {"kept": self._keeping.consents(owner), **standing(session.shelf)}

    def _consent(self, session: Session, owner: str, action: Action) -> Action:
        self._keeping.consent(session, owner, action.get("yes") is True)
        return {**self._told(session, owner, action), **self._list(session, owner, action)}

    def _list(self, session: Session, owner: str, _action: Action) -> Action:
        kept = self._keeping.consents(owner)
        try:
            found = told(self._keeping.conversations(session, owner)) if owner else []
        except RemansoError as problem:
            if problem.code != "history_unknown":
                raise
            found = []
        return {"kept": kept, "list": found, "away": self._keeping.away}

    def _search(self, _session: Session, owner: str, action: Action) -> Action:
        return {"list": told(self._keeping.search(owner, str(action.get("words") or "")))}

    def _open(self, session: Session, owner: str, action: Action) -> Action:
        ratings = self._keeping.open(session, owner, _id(action))
        return {"kept": self._keeping.consents(owner), "ratings": ratings, **standing(session.shelf)}

    def _rename(self, session: Session, owner: str, action: Action) -> Action:
        self._keeping.rename(session, owner, _id(action), str(action.get("title") or ""))
        return self._list(session, owner, action)

    def _export(self, session: Session, owner: str, action: Action) -> Action:
        form: Form = "json" if action.get("form") == "json" else "md"
        language = session.language or self._settings.default_language
        return {"text": self._keeping.export(session, owner, _id(action), form, language)}

    def _import(self, session: Session, owner: str, action: Action) -> Action:
        count = len(self._keeping.import_(owner, str(action.get("text") or "")))
        return {"count": count, **self._list(session, owner, action)}

    def _rate(self, session: Session, owner: str, action: Action) -> Action:
        up = action.get("up")
        if up is None or isinstance(up, bool):
            self._keeping.rate(session, owner, str(action.get("message")), up, str(action.get("word") or ""))
        return {}

    def _delete(self, session: Session, owner: str, action: Action) -> Action:
        if not _id(action):
            raise RemansoError("history_missing")
        return self._gone(session, owner, action, self._keeping.delete(session, owner, _id(action)))

    def _forget(self, session: Session, owner: str, action: Action) -> Action:
        return self._gone(session, owner, action, self._keeping.delete(session, owner))

    def _gone(self, session: Session, owner: str, action: Action, receipt: Receipt) -> Action:
        return {**vars(receipt), **self._told(session, owner, action), **self._list(session, owner, action)}

    def _liked(self, session: Session, data: gr.LikeData, request: gr.Request) -> str:
        """Keeps a thumb; the script then asks for a word."""
        session.language = session.language or self._page.language(request)
        index = data.index if isinstance(data.index, int) else data.index[0]
        up = data.liked if isinstance(data.liked, bool) else None
        try:
            messages = session.conversation.messages
            message = messages[index].id if index < len(messages) else ""
            self._keeping.rate(session, session.shelf.owner, message, up)
            return json.dumps({"did": "liked", "message": message, "index": index, "up": up})
        except RemansoError as problem:
            return json.dumps({"did": "liked", "error": self._page.chat.explain(session, problem)})

    def _standing(self, session: Session) -> str:
        told = self._told(session, session.shelf.owner, {})
        return json.dumps({"did": "turn", "away": self._keeping.away, **told})

    # --- what changes on the page

    def _painted(self, session: Session, ratings: dict[str, Rating]) -> tuple[Any, ...]:
        messages = session.conversation.messages
        bubbles, consents = rendered(messages), self._keeping.consents(session.shelf.owner)
        said = [ratings.get(message.id) for message in messages if message.role == "assistant"]
        bot = gr.update(
            value=bubbles,
            feedback_options=self._thumbs({"kept": consents}),
            feedback_value=[THUMBS[not one.up] if one else None for one in said],
        )
        return bot, turn_of(session), gr.Button(visible=unfinished(session)), bubbles

    def _thumbs(self, answer: Action) -> list[str]:
        return THUMBS if answer.get("kept") else []


def _asked(wish: str) -> Action:
    try:
        action = json.loads(wish or "{}")
    except (ValueError, RecursionError):
        return {}
    return action if isinstance(action, dict) else {}


def _id(action: Action) -> str:
    return str(action.get("id") or "")


def _place(url: str) -> Literal["dataset", "bucket", "sql"]:
    """Returns what kind of place a store's address names."""
    return "dataset" if url.startswith("hf://datasets") else "bucket" if url.startswith("hf://") else "sql"

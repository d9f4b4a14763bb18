"""One turn, from what a person typed to the last streamed word. Policy alone: no layout, no torch.

    check -> assess -> card -> wait for the model -> fit the window -> wait in line -> stream -> guard -> record

In a crisis the turn ends after the card, with reviewed words in the model's place.

The same for the page and for the API. A session is changed in place, so that a turn that is cancelled in the middle
still leaves what was said so far in it.
"""

import asyncio
import logging
import threading
import time
import traceback
import unicodedata
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import notices
import safety
from config import Settings
from counters import Counters
from errors import RemansoError
from history import Finish, Message, fit
from line import Line
from model import ChatModel, Sampling, zerogpu
from model.host import Host
from pieces import guarded, in_thread
from sentences import Language, say
from session import Session

log = logging.getLogger("remanso.chat")

COALESCE_SECONDS = 0.15  # at most 7 updates a second: each costs the page in proportion to the conversation
TELL_SECONDS = 0.5  # how often a waiting person is told where they are
MINUTE = 60.0
ZEROGPU_TURNS = 8  # its own scheduler queues people for a GPU; waiting there needs a place of ours
STEADY_REPLIES = 3  # `reply.crisis.1` and so on, by turns
BIDI_OVERRIDES = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
LEVELS: tuple[safety.Level, ...] = ("none", "elevated", "crisis")


@dataclass(frozen=True)
class Update:
    """What a person sees at a moment: the whole reply so far, or how long the wait is.

    Attributes:
        place: place in the waiting line, 0 when served.
        loading: share of the model that is loaded, when it is still on its way.
    """

    text: str = ""
    place: int = 0
    loading: float | None = None
    finish: Finish | None = None


def clean(words: str) -> str:
    """Removes what is no text: control characters, lone surrogates, bidirectional overrides, outer spaces."""
    kept = (c for c in words if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    return "".join(kept).translate(BIDI_OVERRIDES).strip()


class Chat:
    """The conversation's rules around one model."""

    def __init__(self, settings: Settings, host: Host) -> None:
        self.settings = settings
        self.host = host
        self._line = Line(settings.parallel_turns or (ZEROGPU_TURNS if zerogpu.ON else 1), settings.queue_size)
        self._retried = False
        self.counters = Counters(settings.counters_file)

    def check(self, session: Session, words: str) -> str:
        """The one validator, of page and API: returns the words without what is no text.

        Raises:
            RemansoError: `empty`, `too_long`, `still_replying` or `too_fast`.
        """
        limit = self.settings.max_message_chars
        if len(words) > 4 * limit or len(words := clean(words)) > limit:
            raise RemansoError("too_long", limit=limit)
        if not words:
            raise RemansoError("empty")
        if session.busy:
            raise RemansoError("still_replying")
        now = time.monotonic()
        while session.sent and now - session.sent[0] > MINUTE:
            session.sent.popleft()
        if len(session.sent) >= self.settings.messages_per_minute:
            raise RemansoError("too_fast", seconds=int(MINUTE - (now - session.sent[0])) + 1)
        return words

    async def reply(self, session: Session, words: str) -> AsyncGenerator[Update, None]:
        """Yields the reply to what a person says.

        Raises:
            RemansoError: the words were refused (nothing has changed), or the reply could not be finished (what
                there is of it is in the session).
        """
        words = self.check(session, words)
        session.sent.append(time.monotonic())
        session.conversation.messages.append(Message("user", words))
        card = self._assess(session)
        if session.level == "crisis":
            yield self._steady(session, card)
            return
        async with aclosing(self._turn(session, card)) as updates:
            async for update in updates:
                yield update

    async def go_on(self, session: Session) -> AsyncGenerator[Update, None]:
        """Yields the last reply, gone on with where its length had cut it.

        Raises:
            RemansoError: `nothing_to_continue`, or as `reply`.
        """
        messages = session.conversation.messages
        if session.busy:
            raise RemansoError("still_replying")
        if not messages or messages[-1].finish not in ("length", "cancelled") or not messages[-1].text:
            raise RemansoError("nothing_to_continue")
        partial = messages.pop()
        async with aclosing(self._turn(session, partial.aside, partial.text)) as updates:
            async for update in updates:
                yield update

    def note_refusal(self, session: Session, words: str, problem: RemansoError) -> None:
        """Keeps words that the page already shows but that were refused, with the reason, so that both stay in step."""
        aside = f"⚠️ {self.explain(session, problem)}"
        session.conversation.messages += [Message("user", words), Message("assistant", "", finish="error", aside=aside)]

    def new(self, session: Session) -> None:
        """Starts a new conversation and forgets what was kept to answer the old one faster."""
        self.forget(session)
        session.begin()

    def forget(self, session: Session) -> None:
        """Drops the model's cache of a session's conversation."""
        if self.host.model:
            self.host.model.forget(session.key, in_use=session.busy)

    def _assess(self, session: Session) -> str:
        """Sees the risk of all that the person said, and returns the card and notices that go before the reply."""
        found = safety.assess(session.conversation.said("user"))
        level = LEVELS[max(LEVELS.index(found.level), LEVELS.index(session.carried) - 1)]
        session.level = level
        session.spoken = found.language or session.spoken
        seen, language = safety.Assessment(level, found.category, found.language), self._language(session)
        known = session.helped == "crisis"
        repeated = level == "elevated" and session.helped != "none"
        session.helped = LEVELS[max(LEVELS.index(level), LEVELS.index(session.helped))]
        card = "" if repeated else safety.card(seen, language, session.country or None, compact=known)
        if card:
            self.counters.add(f"card.{level}.{found.category}")
        whole = level == "crisis" and not known
        return _join(card, *notices.due(session, seen, language, self.counters, whole_card=whole))

    def _steady(self, session: Session, card: str) -> Update:
        """Answers in a crisis, with reviewed words alone: what a model makes up there can hurt."""
        number = len(session.conversation.said("user")) % STEADY_REPLIES + 1
        text = say(self._language(session), f"reply.crisis.{number}")
        session.conversation.messages.append(Message("assistant", text, finish="stop", aside=card))
        return Update(_join(card, text), finish="stop")

    def _language(self, session: Session) -> Language:
        return session.spoken or session.language or self.settings.default_language

    async def _turn(self, session: Session, aside: str, text: str = "") -> AsyncGenerator[Update, None]:
        """Streams one reply after `text`, and records it however it ends."""
        session.busy = True
        finish: Finish = "cancelled"
        try:
            while (model := self._model()) is None:
                yield Update(_join(aside, text), loading=self.host.loading.share)
                await asyncio.sleep(TELL_SECONDS)
            aside = _join(aside, await asyncio.to_thread(self._fit, session, model))
            async with aclosing(self._stream(session, model, text)) as updates:
                async for update in updates:
                    text, finish = update.text, update.finish or finish
                    yield replace(update, text=_join(aside, text))
        except Exception as problem:
            finish, known = "error", _known(problem)
            aside = _join(aside, f"⚠️ {self.explain(session, known)}")
            raise known from None
        finally:
            session.conversation.messages.append(Message("assistant", text, finish=finish, aside=aside))
            session.busy = False

    def explain(self, session: Session, problem: RemansoError) -> str:
        """Returns the sentence that tells a person what went wrong, in their language."""
        return say(session.language or self.settings.default_language, f"error.{problem.code}", **problem.values)

    def _model(self) -> ChatModel | None:
        """Returns the model once it is loaded; what failed before is tried again by the next message."""
        if self.host.error and not self._retried:
            self._retried = True
            raise self.host.error
        self._retried = False
        self.host.start()
        return self.host.model

    def _fit(self, session: Session, model: ChatModel) -> str:
        budget = model.context_length - self.settings.max_new_tokens
        if fit(session.conversation, self._system(session), budget, model.count):
            return say(self._language(session), "notice.window")
        return ""

    def _system(self, session: Session) -> Message:
        return Message("system", self.settings.system_prompt or say(self._language(session), "model.system"))

    async def _stream(self, session: Session, model: ChatModel, text: str) -> AsyncGenerator[Update, None]:
        """Waits in line, then yields the reply so far, coalesced; the first words at once."""
        ticket = self._line.join()
        stop = threading.Event()
        release = ticket.leave
        try:
            while not await ticket.wait(TELL_SECONDS):
                yield Update(text, place=ticket.place)
            messages = [self._system(session), *session.conversation.context()]
            if text:
                messages.append(Message("assistant", text))
            deltas = model.stream(messages, self._sampling(model), stop, conversation=session.key)
            checked = guarded(deltas, self._language(session), self.settings.system_prompt, text, self.counters)
            pieces, release = in_thread(checked, ticket.leave), _nothing
            last = 0.0
            async for piece in pieces:
                text += piece.text
                if piece.finish or (piece.text and time.monotonic() - last >= COALESCE_SECONDS):
                    last = time.monotonic()
                    yield Update(text, finish=piece.finish)
        finally:
            stop.set()
            release()

    def _sampling(self, model: ChatModel) -> Sampling:
        own = self.settings
        return Sampling(
            own.warmth(small=model.describe().demonstration), own.top_p, own.repetition_penalty, own.max_new_tokens
        )


def _known(problem: Exception) -> RemansoError:
    """Returns the error that a person may see for any exception, and logs what an operator needs.

    A person's words can be in an exception's text, so only its kind and its place are logged.
    """
    if isinstance(problem, RemansoError):
        return problem
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    log.error("reply failed: %s at %s:%s", type(problem).__name__, Path(frame.filename).name, frame.lineno)
    return RemansoError("out_of_memory" if "OutOfMemory" in type(problem).__name__ else "reply_failed")


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _nothing() -> None:
    return None

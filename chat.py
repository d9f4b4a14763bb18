"""One turn, from what a person typed to the last streamed word. Policy alone: no layout, no torch.

    check -> assess -> card -> wait for the model -> fit the window -> wait in line -> stream -> guard -> record

In a crisis reviewed words follow the card at once, whatever the model does. A model that is no small demonstration may
add a short paragraph to them, under the guard's stricter rules.

The same for the page and for the API. A session is changed in place, so that a turn that is cancelled in the middle
still leaves what was said so far in it.
"""

import asyncio
import logging
import time
import traceback
import unicodedata
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import notices
import safety
from config import Settings
from counters import Counters
from errors import RemansoError
from history import Finish, Message
from model import ChatModel
from model.host import Host
from sentences import say
from session import Session
from speaker import TELL_SECONDS, Speaker, Update
from starters import Starters, is_starter

log = logging.getLogger("remanso.chat")

MINUTE = 60.0
STEADY_REPLIES = 3  # `reply.crisis.1` and so on, by turns
PATIENCE_SECONDS = 20.0  # for what the model adds in a crisis, the waiting line included
ENDS = (".", "!", "?", "…")
BIDI_OVERRIDES = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
LEVELS: tuple[safety.Level, ...] = ("none", "elevated", "crisis")


def clean(words: str) -> str:
    """Removes what is no text: control characters, lone surrogates, bidirectional overrides, outer spaces."""
    kept = (c for c in words if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    return "".join(kept).translate(BIDI_OVERRIDES).strip()


class Chat:
    """The conversation's rules around one model."""

    def __init__(self, settings: Settings, host: Host) -> None:
        self.settings = settings
        self.host = host
        self.counters = Counters(settings.counters_file)
        self.speaker = Speaker(settings, host, self.counters)
        self.starters = Starters()

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
        turn = (
            self._steady(session, card)
            if session.level == "crisis"
            else self._turn(session, card, self._begun(session))
        )
        async with aclosing(turn) as updates:
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
        unfinished = messages and messages[-1].finish in ("length", "cancelled") and messages[-1].text
        if not unfinished or session.level == "crisis":
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
        found = self._found(session)
        level = LEVELS[max(LEVELS.index(found.level), LEVELS.index(session.carried) - 1)]
        has_eased = level == "elevated" and session.level == "crisis"
        session.level = level
        session.spoken = found.language or session.spoken
        seen, language = replace(found, level=level), self.speaker.language(session)
        card, whole = notices.help_due(session, seen, language, has_eased=has_eased)
        session.helped = LEVELS[max(LEVELS.index(level), LEVELS.index(session.helped))]
        if card:
            self.counters.add(f"card.{level}.{found.category}")
        return _join(card, *notices.due(session, seen, language, self.counters, whole_card=whole))

    def _found(self, session: Session) -> safety.Assessment:
        """Returns the risk that a person's words show. Where looking for it fails, help is shown to everybody."""
        try:
            return safety.assess(session.conversation.said("user"))
        except Exception as problem:
            _known(problem)
            self.counters.add("assess.failed")
            return safety.Assessment("crisis" if session.level == "crisis" else "elevated", "none", session.spoken)

    def _begun(self, session: Session) -> str:
        """Returns the reviewed words that a reply begins with, if any: who is to be asked about a medicine.

        Where looking for it fails, the model begins by itself, and the guard still checks what it says.
        """
        try:
            asked = safety.asks_about_medicine(session.conversation.said("user"))
        except Exception as problem:
            _known(problem)
            return ""
        return say(self.speaker.language(session), "reply.medicine") if asked else ""

    async def _steady(self, session: Session, aside: str) -> AsyncGenerator[Update, None]:
        """Answers in a crisis with reviewed words, then with what the model may add to them, if anything.

        A model that fails, is slow or says what it may not leaves the reviewed words, and no error.
        """
        conversation = session.conversation  # a new one may begin before this turn has ended
        number = len(conversation.said("user")) % STEADY_REPLIES + 1
        text = fixed = say(self.speaker.language(session), f"reply.crisis.{number}")
        session.busy = True
        try:
            yield Update(_join(aside, text))
            async with aclosing(self._paragraph(session)) as added:
                async for more in added:
                    text = _join(fixed, more.strip())
                    yield Update(_join(aside, text))
        except Exception as problem:
            _known(problem)
        finally:
            conversation.messages.append(Message("assistant", text, finish="stop", aside=aside))
            session.busy = False
        yield Update(_join(aside, text), finish="stop")

    async def _paragraph(self, session: Session) -> AsyncGenerator[str, None]:
        """Yields the short paragraph so far that a model adds in a crisis. A small demonstration model adds none."""
        model = self.host.model
        if not model or model.describe().demonstration:
            return
        until = time.monotonic() + PATIENCE_SECONDS
        await asyncio.to_thread(self.speaker.fit, session, model)
        async with aclosing(self.speaker.stream(session, model, "", crisis=True)) as updates:
            while (left := until - time.monotonic()) > 0:
                try:
                    update = await asyncio.wait_for(anext(updates), left)
                except (StopAsyncIteration, TimeoutError):
                    return
                if update.text.rstrip().endswith(ENDS):  # a part of a sentence may be the last that comes
                    yield update.text

    async def _turn(self, session: Session, aside: str, text: str = "") -> AsyncGenerator[Update, None]:
        """Streams one reply after `text`, and records it however it ends."""
        conversation = session.conversation
        session.busy = True
        finish: Finish = "cancelled"
        try:
            while (model := self.speaker.model()) is None:
                yield Update(_join(aside, text), loading=self.host.loading.share)
                await asyncio.sleep(TELL_SECONDS)
            aside = _join(aside, await asyncio.to_thread(self.speaker.fit, session, model))
            async with aclosing(self._words(session, model, text)) as updates:
                async for update in updates:
                    text, finish = update.text, update.finish or finish
                    yield replace(update, text=_join(aside, text))
        except Exception as problem:
            finish, known = "error", _known(problem)
            aside = _join(aside, f"⚠️ {self.explain(session, known)}")
            raise known from None
        finally:
            conversation.messages.append(Message("assistant", text, finish=finish, aside=aside))
            session.busy = False

    async def _words(self, session: Session, model: ChatModel, text: str) -> AsyncGenerator[Update, None]:
        """Yields the model's reply after `text`; to a prompt of ours at the beginning, the one that it gave before."""
        first = [message.text for message in session.conversation.messages]
        calm = session.level == session.carried == "none"
        fresh = calm and not text and not session.answered and len(first) == 1 and is_starter(first[0])
        session.answered = True
        key = self.speaker.key(session, model) if fresh else ""
        if key and (known := self.starters.get(key)):
            yield Update(known, finish="stop")
            return
        async with aclosing(self.speaker.stream(session, model, text)) as updates:
            async for update in updates:
                if key and update.finish == "stop":
                    self.starters.put(key, update.text)
                yield update

    def explain(self, session: Session, problem: RemansoError) -> str:
        """Returns the sentence that tells a person what went wrong, in their language."""
        return say(session.language or self.settings.default_language, f"error.{problem.code}", **problem.values)


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

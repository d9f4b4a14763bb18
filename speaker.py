"""The model's part of a turn: it is there, what fits its window, the line before it, its words under guard.

Knows nothing of what a message means or of help; `chat.py` says what a turn is.
"""

import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

import safety
from config import Settings
from counters import Counters
from history import Finish, Message, fit
from line import Line
from model import ChatModel, Sampling
from model.host import Host
from pieces import guarded, in_thread
from sentences import Language, say
from session import Session

COALESCE_SECONDS = 0.1  # at most 10 updates a second: each costs the page in proportion to the conversation
UPDATES = 500  # a second, of all replies together: more than one core takes through Gradio would queue up
TELL_SECONDS = 0.5  # how often a waiting person is told where they are
STEADY_TOKENS = 120  # room for two sentences, in a crisis


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


class Speaker:
    """One model, and the people who wait for its words."""

    def __init__(self, settings: Settings, host: Host, counters: Counters) -> None:
        self._settings = settings
        self._host = host
        self._counters = counters
        self._line = Line(settings.parallel_turns or 1, settings.queue_size)
        self._retried = False

    def model(self) -> ChatModel | None:
        """Returns the model once it is loaded; what failed before is tried again by the next message."""
        if self._host.error and not self._retried:
            self._retried = True
            raise self._host.error
        self._retried = False
        self._host.start()
        return self._host.model

    def language(self, session: Session) -> Language:
        """Returns the language that a person is answered in."""
        return session.spoken or session.language or self._settings.default_language

    def fit(self, session: Session, model: ChatModel) -> str:
        """Drops the oldest turns that the context window has no room for, and returns what is to be said of it."""
        budget = model.context_length - self._settings.max_new_tokens
        if fit(session.conversation, self._system(session), budget, model.count):
            return say(self.language(session), "notice.window")
        return ""

    def _system(self, session: Session, *, crisis: bool = False) -> Message:
        prompt = self._settings.system_prompt or say(self.language(session), "model.system")
        return Message("system", f"{prompt} {say(self.language(session), 'reply.crisis.system')}" if crisis else prompt)

    async def stream(
        self, session: Session, model: ChatModel, text: str, *, crisis: bool = False
    ) -> AsyncGenerator[Update, None]:
        """Waits in line, then yields the reply so far, coalesced; the first words at once."""
        ticket = self._line.join()
        stop = threading.Event()
        release = ticket.leave
        try:
            while not await ticket.wait(TELL_SECONDS):
                yield Update(text, place=ticket.place)
            system = self._system(session, crisis=crisis)
            messages = [system, *session.conversation.context()]
            if text:
                messages.append(Message("assistant", text))
            deltas = model.stream(messages, self._sampling(model, crisis=crisis), stop, conversation=session.key)
            secret = system.text if crisis else self._settings.system_prompt
            guard = partial(safety.guard, language=self.language(session), crisis=crisis, prompt=secret, before=text)
            heard = "\n".join(message.text for message in messages if message.role == "user")
            checked = guarded(deltas, lambda told: guard(told).hearing(heard), self._counters)
            pieces, release = in_thread(checked, ticket.leave), _nothing
            async for piece in pieces:
                text += piece.text
                yield Update(text, finish=piece.finish)
                if not piece.finish:  # what comes meanwhile comes joined, and nothing that has passed is held back
                    await asyncio.sleep(max(COALESCE_SECONDS, self._line.served / UPDATES))
        finally:
            stop.set()
            release()

    def key(self, session: Session, model: ChatModel) -> str:
        """Returns a hash of all that a reply depends on: model, sampling, system prompt and what was said."""
        messages = [self._system(session), *session.conversation.context()]
        parts = [repr(model.describe()), repr(self._sampling(model, crisis=False)), *(one.text for one in messages)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _sampling(self, model: ChatModel, *, crisis: bool) -> Sampling:
        own = self._settings
        length = min(own.max_new_tokens, STEADY_TOKENS) if crisis else own.max_new_tokens
        return Sampling(own.warmth(small=model.describe().demonstration), own.top_p, own.repetition_penalty, length)


def _nothing() -> None:
    return None

"""People who talk to a server over HTTP at the same time: Gradio's API, or OpenAI's chat completions.

Knows nothing of what serves them.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2

TIMEOUT = 600.0
Talk = Callable[[httpx2.AsyncClient, str], AsyncIterator[str]]


@dataclass(frozen=True)
class Heard:
    """What one person saw: seconds to the first words and to the last, and the whole reply; none if it failed."""

    first: float
    last: float
    text: str


def gradio(url: str, endpoint: str = "chat") -> Talk:
    """Returns the way to talk to an app through Gradio's API, where each event holds the whole reply so far."""

    async def talk(client: httpx2.AsyncClient, words: str) -> AsyncIterator[str]:
        call = f"{url}gradio_api/call/{endpoint}"
        begun = await client.post(call, json={"data": [words], "session_hash": uuid4().hex})
        begun.raise_for_status()
        async with client.stream("GET", f"{call}/{begun.json()['event_id']}") as events:
            kind = ""
            async for line in events.aiter_lines():
                if line.startswith("event:"):
                    kind = line.removeprefix("event:").strip()
                elif line.startswith("data:") and kind == "error":
                    raise RuntimeError(line)
                elif line.startswith("data:") and kind in ("generating", "complete"):
                    found = json.loads(line.removeprefix("data:"))
                    yield found[0] if isinstance(found, list) else ""

    return talk


def openai(url: str, model: str, system: str, new_tokens: int) -> Talk:
    """Returns the way to talk to a server of chat completions, where each event holds what is new."""

    async def talk(client: httpx2.AsyncClient, words: str) -> AsyncIterator[str]:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": words}]
        wish: dict[str, Any] = {"model": model, "stream": True, "max_tokens": new_tokens, "temperature": 0.3}
        text = ""
        async with client.stream("POST", f"{url}v1/chat/completions", json={**wish, "messages": messages}) as events:
            events.raise_for_status()
            async for line in events.aiter_lines():
                if line.startswith("data:") and "[DONE]" not in line:
                    choices = json.loads(line.removeprefix("data:")).get("choices") or [{}]
                    text += choices[0].get("delta", {}).get("content") or ""
                    yield text

    return talk


async def heard(talk: Talk, client: httpx2.AsyncClient, words: str) -> Heard:
    """Has one person say something and listen to the end.

    Raises:
        RuntimeError: the server refused.
    """
    start, first, text = time.perf_counter(), 0.0, ""
    async for text in talk(client, words):
        first = first or (time.perf_counter() - start if text else 0.0)
    return Heard(first, time.perf_counter() - start, text)


def together(talk: Talk, said: Sequence[str]) -> list[Heard]:
    """Has each of these sentences said by a person of its own, all at the same moment; who fails is left out."""

    async def everybody() -> list[Heard]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(timeout=TIMEOUT, limits=limits) as client:
            found = await asyncio.gather(*(heard(talk, client, words) for words in said), return_exceptions=True)
        return [one for one in found if isinstance(one, Heard) and one.text]

    return asyncio.run(everybody())

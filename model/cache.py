"""KV caches of conversations, kept between turns so that only what is new has to be read.

A cache is found by its conversation's key alone and matched on token ids: undo, edit and retry crop it to what still
holds. Bounded in bytes; the longest unused goes first. Knows nothing of text or sampling.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

CACHE_BYTES = 512 * 1024 * 1024
ROOM = 256  # tokens that a cache has room for beyond what it holds, whenever it has to grow


class RoomyLayer(DynamicLayer):
    """A layer's keys and values at the front of larger tensors: new ones are written behind them.

    transformers' own layer copies all that it holds at each token, which makes a long conversation slow.
    """

    _rooms: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Adds keys and values, shape `(batch, heads, tokens, width)`, and returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self._rooms is None or self._rooms[0].shape[-2] < end or self._rooms[0].shape[:-2] != key_states.shape[:-2]:
            assert self.keys is not None and self.values is not None
            self._rooms = _grown(self.keys, key_states, length), _grown(self.values, value_states, length)
        keys, values = self._rooms
        keys[..., length:end, :] = key_states
        values[..., length:end, :] = value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values


def _grown(held: Tensor, new: Tensor, length: int) -> Tensor:
    """Returns a tensor that begins with `held`, and has room for `new` and more."""
    room = new.new_empty(*new.shape[:-2], length + new.shape[-2] + ROOM, new.shape[-1])
    if length:
        room[..., :length, :] = held
    return room


def full_length_cache() -> Cache:
    """Returns an empty cache that keeps every position in every layer.

    Without the model's config on purpose: with it, layers with sliding-window attention would forget what lies
    before their window, and could not be cropped. The attention mask still applies the window.
    """
    return Cache(layer_class_to_replicate=RoomyLayer)


def bytes_of(cache: Cache) -> int:
    """Returns the memory that keys and values take, with the room that is kept for more."""
    tensors = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor is not None)


@dataclass
class Kept:
    """A cache and the token ids whose keys and values it holds."""

    cache: Cache = field(default_factory=full_length_cache)
    ids: list[int] = field(default_factory=list)

    def crop_to(self, prompt: Sequence[int]) -> int:
        """Removes what `prompt` does not begin with, and returns how many tokens of it need no reading.

        The last token of a prompt is always read again: its logits choose the first new token.
        """
        known = 0
        for mine, wanted in zip(self.ids, prompt[:-1], strict=False):
            if mine != wanted:
                break
            known += 1
        if surplus := len(self.ids) - known:
            # A positive length is refused by transformers 5; a negative one is the number of tokens to remove.
            self.cache.crop(-surplus)
            del self.ids[known:]
        return known


class CacheShelf:
    """Caches by conversation key. One turn takes a cache off the shelf and puts it back when it ends."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._forgotten: set[str] = set()
        self._lock = threading.Lock()

    def take(self, key: str | None) -> Kept:
        """Returns the cache of a conversation, or a new one. While it is out, nobody else can have it."""
        with self._lock:
            return Kept() if key is None else self._kept.pop(key, Kept())

    def put(self, key: str | None, kept: Kept) -> None:
        """Keeps a cache for the next turn, and drops the longest unused ones when there is no room."""
        if key is None:
            return
        with self._lock:
            if key in self._forgotten or not kept.ids:
                self._forgotten.discard(key)
                return
            self._kept[key] = kept
            while self._kept and self.bytes > self._limit:
                self._kept.popitem(last=False)

    def forget(self, key: str, *, in_use: bool = False) -> None:
        """Drops a conversation's cache; with `in_use`, also the one that a running turn would put back."""
        with self._lock:
            self._kept.pop(key, None)
            if in_use:
                self._forgotten.add(key)

    def clear(self) -> None:
        """Drops every cache that no turn has out."""
        with self._lock:
            self._kept.clear()

    @property
    def bytes(self) -> int:
        """Memory of all caches on the shelf."""
        return sum(bytes_of(kept.cache) for kept in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)


class Beginnings:
    """Caches of what many conversations begin with: the system prompts, and nothing that a person has said.

    One is learned from the first conversation that reads it, and lent to all that come after.
    """

    def __init__(self, limit: int = 8) -> None:
        """Holds at most `limit` of them, the longest unused goes first."""
        self._limit = limit
        self._held: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def expect(self, name: str, ids: Callable[[], list[int]]) -> None:
        """Says under a name what is to be learned; `ids` is asked for the first time alone."""
        with self._lock:
            if name in self._held:
                return
            self._held[name] = Kept(ids=ids())
            if len(self._held) > self._limit:
                self._held.popitem(last=False)

    def learn(self, kept: Kept) -> None:
        """Copies what is still to be learned out of a cache that has it."""
        with self._lock:
            for held in self._held.values():
                if not held.cache.layers and held.ids == kept.ids[: len(held.ids)]:
                    held.cache = beginning_of(kept.cache, len(held.ids))

    def lend(self, kept: Kept, prompt: Sequence[int]) -> None:
        """Copies the beginning of a prompt into an empty cache, if it is known."""
        if kept.ids:
            return
        with self._lock:
            for name, held in self._held.items():
                if held.cache.layers and held.ids == list(prompt[: len(held.ids)]):
                    kept.cache, kept.ids = beginning_of(held.cache, len(held.ids)), list(held.ids)
                    self._held.move_to_end(name)
                    return


def beginning_of(cache: Cache, length: int) -> Cache:
    """Returns a copy of the first `length` positions."""
    copy = full_length_cache()
    layers: list[Any] = list(cache.layers)
    for number, layer in enumerate(layers):
        copy.update(layer.keys[:, :, :length], layer.values[:, :, :length], number)
    return copy

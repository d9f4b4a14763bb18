"""How the next token is chosen from the logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

NEGLIGIBLE = 30.0  # nats below the likeliest: a vocabulary of such tokens has a share of 2e-8
CANDIDATES = 64  # only the likeliest are weighed: sorting a vocabulary of 262,144 would cost more than the model
RUN = 64  # neighbouring words whose highest logit is found first


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of one reply.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751).
        repetition_penalty: 1 is none (Keskar et al. 2019, arXiv:1909.05858).
        max_new_tokens: longest reply.
        seed: makes a reply repeatable.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    seed: int | None = None

    def generator(self, device: torch.device) -> torch.Generator:
        """Returns the source of chance for one reply."""
        made = torch.Generator(device)
        made.seed() if self.seed is None else made.manual_seed(self.seed)
        return made


def choose(logits: torch.Tensor, sampling: Sampling, seen: Sequence[int], generator: torch.Generator) -> int:
    """Returns the next token id.

    Args:
        logits: shape `(vocabulary,)`, any float type.
        seen: ids that the repetition penalty holds against being said again.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1.0 and seen:
        index = torch.tensor(sorted(set(seen)), device=logits.device)
        score = logits[index]
        penalised = torch.where(score > 0, score / sampling.repetition_penalty, score * sampling.repetition_penalty)
        logits = logits.scatter(0, index, penalised)
    if sampling.temperature == 0:
        return int(logits.argmax())
    top, ids = likeliest(logits, CANDIDATES)
    near = _above(logits, top[0] - NEGLIGIBLE * sampling.temperature)
    top, whole = top / sampling.temperature, (near / sampling.temperature).logsumexp((0, 1))
    probability = (top - whole).exp()
    before = probability.cumsum(0) - probability  # mass of the likelier tokens: the first one is always kept
    probability[before > sampling.top_p] = 0
    return int(ids[torch.multinomial(probability, 1, generator=generator)])


def likeliest(logits: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the highest of `logits`, shape `(vocabulary,)`, highest first, and their ids, as `topk` does.

    Whatever is among the highest lies in one of as many runs of words whose own highest are: only those are sorted.
    """
    if len(logits) % RUN or number * RUN >= len(logits):
        return logits.topk(min(number, len(logits)))
    runs = logits.view(-1, RUN)
    best = runs.amax(1).topk(number, sorted=False).indices
    top, place = runs[best].flatten().topk(number)
    return top, best[place // RUN] * RUN + place % RUN


def _above(logits: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Returns the runs of words in which one is above `least`: the exponentials of all would cost more than a layer."""
    runs = logits.view(-1, 1 if len(logits) % RUN else RUN)
    return runs[runs.amax(1) > least]

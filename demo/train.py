"""Trains the embedded model's adapter: a LoRA that teaches a base model to converse in our chat format.

    python -m demo.train --output demo/runs/first        # Gemma-3-270m learns to converse: 50 minutes on 2 cores
    python -m demo.train --start demo/runs/first --data demo/echoes.jsonl demo/turns.jsonl --epochs 1.5  # to listen: 50
    python -m demo.train --resume                        # goes on from the last checkpoint

These two reach what the adapter did before its last three stages, which its card tells; fewer passes do not.
The loss counts on replies only. The chat template is the one saved beside the adapter, so that training and
conversation build the same tokens. Knows nothing of the page, of sampling or of safety.
"""

import argparse
import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from config import Settings
from model.embedded import ensure_base
from model.prompt import Role, encode
from sentences import say

HERE = Path(__file__).parent
TEMPLATE = HERE / "adapter" / "chat_template.jinja"
EMBEDDED_BASE = "google/gemma-3-270m"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IGNORED = -100  # the label that cross entropy leaves out
SAMPLE = 16_384  # words that stand for the rest of the vocabulary in a training step
SAVED = 0.1  # share of the training after which there is another checkpoint
HELD_BACK = 60  # dialogues that only measure
SEED = 7


class Turn(NamedTuple):
    """One message of a dialogue."""

    role: Role
    text: str


class FrozenHeadLoss(torch.autograd.Function):
    """Cross entropy through a head that is not trained, summed, with its gradient made in the same pass.

    Some rows at a time, so that logits of a large vocabulary never take gigabytes.
    """

    ROWS = 128

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> Any:
        """Takes `hidden` (rows, width), the head's `weight` (words, width), a bias of its logits, and `labels`."""
        total, slopes = torch.zeros(()), torch.empty_like(hidden)
        for start in range(0, len(labels), FrozenHeadLoss.ROWS):
            part = slice(start, start + FrozenHeadLoss.ROWS)
            logits = (hidden[part] @ weight.T).float() + bias
            wanted = labels[part, None]
            total += (logits.logsumexp(-1) - logits.gather(1, wanted)[:, 0]).sum().cpu()
            slope = logits.softmax(-1).scatter_add_(1, wanted, torch.full_like(wanted, -1.0, dtype=torch.float32))
            slopes[part] = slope.to(weight.dtype) @ weight
        ctx.save_for_backward(slopes)
        return total

    @staticmethod
    def backward(ctx: Any, *slope: Any) -> Any:
        """Returns the gradient of `hidden` alone."""
        (slopes,) = ctx.saved_tensors
        return slopes * slope[0].to(slopes), None, None, None


def sampled(labels: torch.Tensor, words: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses the words of a vocabulary that a training step weighs: the labels, and a sample for all the others.

    Sampled softmax (Jean et al. 2015, arXiv:1412.2007): each sampled word stands for `others / size` words, which is
    added to its logit as a logarithm. The head is 262,144 words wide, and half of a step's arithmetic.

    Returns:
        ids of the words, and what is added to their logits; the labels come first, in order.
    """
    said = cast(Any, labels).unique()
    others = torch.ones(words, dtype=torch.bool)
    others[said] = False
    rest = others.nonzero()[:, 0]
    drawn = rest[torch.randperm(len(rest))[:size]]
    weight = torch.full((len(drawn),), math.log(max(len(rest), 1) / max(len(drawn), 1)))
    return torch.cat([said, drawn]), torch.cat([torch.zeros(len(said)), weight])


class ReplyTrainer(Trainer):
    """Computes logits only where a reply is to be learned: a vocabulary of 262,144 makes the others costly."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross entropy in nats per token over the replies of a batch."""
        labels = inputs["labels"][:, 1:]
        causal = model.get_base_model()
        hidden = causal.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0][:, :-1]
        learned = labels != IGNORED
        loss = self._loss(hidden[learned], causal.lm_head.weight, labels[learned], model.training)
        loss = loss / (learned.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _loss(self, hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, training: bool) -> Any:
        loss: Any = FrozenHeadLoss
        if not training or len(head) <= SAMPLE:
            return loss.apply(hidden, head, torch.zeros(len(head), device=head.device), labels)
        ids, bias = (part.to(head.device) for part in sampled(labels.cpu(), len(head), SAMPLE))
        said = ids[: int((bias == 0).sum())]
        return loss.apply(hidden, head[ids], bias, torch.searchsorted(said, labels))


def tokenize(tokenizer: PreTrainedTokenizerBase, turns: list[Turn]) -> dict[str, list[int]]:
    """Returns `input_ids` of a whole dialogue and `labels` that keep the replies and their terminator alone."""
    ids = encode(tokenizer, turns, reply=False)
    labels = [IGNORED] * len(ids)
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            start, end = len(encode(tokenizer, turns[:index])), len(encode(tokenizer, turns[: index + 1], reply=False))
            labels[start:end] = ids[start:end]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


def dialogues(*paths: Path) -> list[list[Turn]]:
    """Reads one dialogue a line and puts the system prompt of its language in front."""
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in lines if line.strip()]
    return [
        [Turn("system", say(row["lang"], "model.system")), *(Turn(m["role"], m["content"]) for m in row["messages"])]
        for row in rows
    ]


def split(*paths: Path) -> tuple[list[list[Turn]], list[list[Turn]]]:
    """Returns the dialogues of some files that are held back to measure, and those that are learned from."""
    rows = dialogues(*paths)
    random.Random(SEED).shuffle(rows)  # noqa: S311 - no secret
    return rows[:HELD_BACK], rows[HELD_BACK:]


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words that stand for one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="folder or Hub id of the base; the embedded one by default")
    parser.add_argument("--start", type=Path, help="folder of an adapter to go on from, instead of a new one")
    parser.add_argument("--data", type=Path, nargs="+", default=[HERE / "dialogues.jsonl"])
    parser.add_argument("--output", type=Path, default=HERE / "adapter")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="where checkpoints go")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--dropout", type=float, default=0.05, help="of the adapter; 0 saves a seventh of a step")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=-1, help="stop after so many steps")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    base = options.base or str(ensure_base(Settings().cache_dir))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    trainer = trained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), tokenizer, options)
    print("held-back loss, nats per token:", round(trainer.evaluate()["eval_loss"], 3))
    save(trainer.model, options.output, options.base or EMBEDDED_BASE)


def trained(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: argparse.Namespace) -> Trainer:
    """Trains an adapter on a base, and returns the trainer that holds both."""
    held, learned = ([tokenize(tokenizer, turns) for turns in part] for part in split(*options.data))
    trainer = ReplyTrainer(
        model=adapted(base, options),
        args=recipe(options),
        train_dataset=learned,
        eval_dataset=held,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
    )
    trainer.train(resume_from_checkpoint=options.resume)
    return trainer


def adapted(base: PreTrainedModel, options: argparse.Namespace) -> Any:
    """Puts a new adapter on a base, or the one to start from."""
    if options.start:
        config = LoraConfig.from_pretrained(options.start)
        config.lora_dropout = options.dropout
        return PeftModel.from_pretrained(base, options.start, is_trainable=True, config=config)
    rank = options.rank
    return get_peft_model(
        base,
        LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=options.dropout,
            target_modules=LINEAR,
            task_type="CAUSAL_LM",
        ),
    )


def recipe(options: argparse.Namespace) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(options.runs),
        num_train_epochs=options.epochs,
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        per_device_eval_batch_size=options.batch,
        learning_rate=options.rate,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_steps=SAVED,
        save_total_limit=3,
        logging_steps=5,
        report_to="none",
        seed=SEED,
        remove_unused_columns=False,
        prediction_loss_only=True,
    )


def save(model: Any, folder: Path, base: str) -> None:
    """Writes the adapter in bf16, half the size and the precision it is used in, with its template."""
    model.to(torch.bfloat16).save_pretrained(folder)
    if not (folder / TEMPLATE.name).exists():
        shutil.copy(TEMPLATE, folder)
    settings = folder / "adapter_config.json"
    declared = json.loads(settings.read_text())
    declared["base_model_name_or_path"] = base
    settings.write_text(json.dumps(declared, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

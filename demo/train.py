"""Trains the embedded model's adapter: a LoRA that teaches a base model to converse in our chat format.

    python -m demo.train                     # Gemma-3-270m on 2 cores, about a quarter of an hour
    python -m demo.train --resume            # goes on from the last checkpoint

The loss counts on replies only. The chat template is the one saved beside the adapter, so that training and
conversation build the same tokens. Knows nothing of the page, of sampling or of safety.
"""

import argparse
import json
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
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
HELD_BACK = 20  # dialogues that only measure
SEED = 7


class Turn(NamedTuple):
    """One message of a dialogue."""

    role: Role
    text: str


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
        logits = causal.lm_head(hidden[learned]).float()
        loss = torch.nn.functional.cross_entropy(logits, labels[learned], reduction="sum")
        loss = loss / (learned.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss


def tokenize(tokenizer: PreTrainedTokenizerBase, turns: list[Turn]) -> dict[str, list[int]]:
    """Returns `input_ids` of a whole dialogue and `labels` that keep the replies and their terminator alone."""
    ids = encode(tokenizer, turns, reply=False)
    labels = [IGNORED] * len(ids)
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            start, end = len(encode(tokenizer, turns[:index])), len(encode(tokenizer, turns[: index + 1], reply=False))
            labels[start:end] = ids[start:end]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


def dialogues(path: Path) -> list[list[Turn]]:
    """Reads one dialogue a line and puts the system prompt of its language in front."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        [Turn("system", say(row["lang"], "model.system")), *(Turn(m["role"], m["content"]) for m in row["messages"])]
        for row in rows
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="folder or Hub id of the base; the embedded one by default")
    parser.add_argument("--data", type=Path, default=HERE / "dialogues.jsonl")
    parser.add_argument("--output", type=Path, default=HERE / "adapter")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="where checkpoints go")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=-1, help="stop after so many steps")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    base = options.base or str(ensure_base(Settings().cache_dir))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    rows = [tokenize(tokenizer, turns) for turns in dialogues(options.data)]
    random.Random(SEED).shuffle(rows)  # noqa: S311 - no secret
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16),
        LoraConfig(
            r=options.rank, lora_alpha=2 * options.rank, lora_dropout=0.05, target_modules=LINEAR, task_type="CAUSAL_LM"
        ),
    )
    trainer = ReplyTrainer(
        model=model,
        args=recipe(options),
        train_dataset=rows[HELD_BACK:],
        eval_dataset=rows[:HELD_BACK],
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
    )
    trainer.train(resume_from_checkpoint=options.resume)
    print("held-back loss, nats per token:", round(trainer.evaluate()["eval_loss"], 3))
    save(model, options.output, options.base or EMBEDDED_BASE)


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
        save_strategy="epoch",
        save_total_limit=2,
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

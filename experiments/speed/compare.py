"""Training speed beside Hugging Face's trainers: same rows, same encoder, same batch size, one machine, in turn.

    python experiments/speed/compare.py MIRROR [--steps 30] [--rounds 2] [--backbone embedded]

The peers are `Trainer` (full fine-tuning) and `AdapterTrainer` (seq_bn) as a careful user sets them up:
group_by_length and dynamic padding. Each round times all four, xadapt and peer in turn; the first three steps
of every run are warm-up. Prints real tokens a second of each run and the ratios of the medians.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import adapters
import torch
from adapters import AdapterTrainer
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments
from transformers import XLMRobertaForSequenceClassification as Classifier

from xadapt.data import open_source
from xadapt.formats import FORMATS, Features
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import TaskModel
from xadapt.models.trimming import trim_vocabulary
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FullSpec
from xadapt.tasks import get_task
from xadapt.training.device import make_accelerator
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.settings import TrainingSettings

WARMUP, BATCH = 3, 32
LEARNING_RATE = {"full": 5e-5, "adapter": 5e-4}


class Clock:
    """Real (not padding) tokens a second after the warm-up, from the moments at which steps end.

    Tokens and not examples: the two sides draw their batches in different orders, and a batch of long rows is
    more work than one of short rows.
    """

    def __init__(self, tokens: Callable[[], int]) -> None:
        self.tokens = tokens
        self.moments: list[tuple[float, int]] = []

    def step(self, *_: Any) -> None:
        self.moments.append((time.perf_counter(), self.tokens()))

    def selection(self, *_: Any) -> None:
        pass

    @property
    def rate(self) -> float:
        (start, before), (end, after) = self.moments[WARMUP - 1], self.moments[-1]
        return (after - before) / (end - start)


class StepTimer(TrainerCallback):
    """Tells a clock of every step of a Hugging Face trainer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.step()


def ours(regime: str, backbone: Backbone, features: Features, steps: int) -> float:
    """Real tokens a second of xadapt's loop."""
    task = get_task("mnli")
    form = FORMATS[task.format]
    encoder = open_regime(FullSpec() if regime == "full" else AdapterSpec()).attach(backbone, name="mnli")
    if regime == "full":
        trimmed = trim_vocabulary(encoder, features.input_ids)
        features = replace(features, input_ids=trimmed.map(features.input_ids))
    head = form.head(encoder.config.hidden_size, task, 0.1)
    assert head is not None
    settings = TrainingSettings(max_steps=steps, learning_rate=LEARNING_RATE[regime], per_device_train_batch_size=BATCH)
    clock = Clock(lambda: training.result.tokens)
    training = Training(
        TaskModel(encoder, head), [TrainingPart(form, features)], settings, seed=0, pad_token_id=backbone.tokenizer.pad_token_id,
        accelerator=make_accelerator("float32"), evaluate=lambda: {"accuracy": 0.0}, metric="accuracy", monitors=[clock],
    )  # fmt: skip
    training.run()
    return clock.rate


def peer(regime: str, backbone: Backbone, features: Features, steps: int) -> float:
    """Real tokens a second of Trainer or AdapterTrainer, set up with care."""
    assert features.labels is not None
    model = Classifier.from_pretrained(backbone.folder, num_labels=3)
    if regime == "adapter":
        adapters.init(model)
        model.add_adapter("mnli", config="seq_bn")
        model.train_adapter("mnli")
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(features.input_ids, features.labels, strict=True)]
    pad, seen = DataCollatorWithPadding(backbone.tokenizer), [0]

    def collate(rows: list[dict[str, Any]]) -> Any:
        batch = pad(rows)
        seen[0] += int(batch["attention_mask"].sum())
        return batch

    clock = Clock(lambda: seen[0])
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=LEARNING_RATE[regime],
            group_by_length=True, save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no",
            warmup_ratio=0.1, use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        trainer = (AdapterTrainer if regime == "adapter" else Trainer)(
            model=model, args=arguments, train_dataset=rows, data_collator=collate,
            callbacks=[StepTimer(clock)],
        )  # fmt: skip
        trainer.train()
    return clock.rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mirror")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    for name in ("transformers", "adapters"):
        logging.getLogger(name).setLevel(logging.ERROR)
    backbone, task = Backbone(options.backbone), get_task("mnli")
    rows = open_source(options.mirror).load(task, "en", "train", limit=3200)
    features = FORMATS[task.format].encode(rows, task, backbone.tokenizer, 128)
    for regime in ("adapter", "full"):
        pairs = []
        for _ in range(options.rounds):
            pairs.append(
                (ours(regime, backbone, features, options.steps), peer(regime, backbone, features, options.steps))
            )
            print(f"{regime}: xadapt {pairs[-1][0]:.0f}, peer {pairs[-1][1]:.0f} tokens/s", flush=True)
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{regime}: median xadapt {mine:.0f}, peer {theirs:.0f} tokens/s, ratio {mine / theirs:.2f}", flush=True)


if __name__ == "__main__":
    main()

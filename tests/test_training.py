"""The training loop against the libraries' own trainers, against itself cut otherwise, and against kept losses.

golden/losses_<regime>_<format>.txt hold one line `step loss` each. They are made again, after a change that is
meant to alter results (raise the version of the stage `train` with it), by `python tests/test_training.py` in the
repository's root.
"""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import adapters
import pytest
import torch
import transformers
from silent_reporter import Silent
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments, XLMRobertaTokenizerFast

from xadapt.data.sources import EmbeddedSource
from xadapt.errors import UserError
from xadapt.formats import FORMATS, Features, Format
from xadapt.formats.features import collate
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import TaskModel
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FullSpec, LoraSpec, RegimeSpec
from xadapt.study.executors import run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe import Recipe
from xadapt.study.store import Store
from xadapt.tasks import Task, get_task
from xadapt.training.batching import optimizer_batches
from xadapt.training.device import make_accelerator
from xadapt.training.log import JsonLog
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.optimizer import make_optimizer, make_schedule
from xadapt.training.prediction import predict_logits
from xadapt.training.result import FitResult, Monitor
from xadapt.training.settings import TrainingSettings

GOLDEN = Path(__file__).parent / "golden"
SPECS: dict[str, RegimeSpec] = {
    "full": FullSpec(),
    "seq_bn": AdapterSpec(),
    "double_seq_bn": AdapterSpec(config="double_seq_bn", reduction_factor=4, non_linearity="swish"),
    "lora": LoraSpec(r=4, lora_dropout=0.1),
}
TARGETS = {"classification": "xnli", "tagging": "udpos"}
BATCH, LENGTH = 8, 64
NUMBERS = TrainingSettings(
    learning_rate=5e-3, per_device_train_batch_size=BATCH, max_steps=20, warmup_ratio=0.2, weight_decay=0.01,
    max_grad_norm=0.05, max_seq_length=LENGTH, dtype="float32",
)  # fmt: skip


class Job(NamedTuple):
    """What a Training is made of."""

    task: Task
    form: Format
    features: Features
    model: TaskModel
    pad: int


def job(backbone: Backbone, regime: str = "seq_bn", format: str = "classification", *, rows: int = 80, seed: int = 1) -> Job:  # fmt: skip
    """Features of the suite's first English training rows and a model with fresh parameters."""
    task = get_task(TARGETS[format])
    source = get_task(task.train_task)
    form = FORMATS[format]
    loaded = EmbeddedSource().load(source, "en", "train", limit=rows)
    features = form.encode(loaded, source, backbone.tokenizer, LENGTH)
    torch.manual_seed(seed)
    encoder = open_regime(SPECS[regime]).attach(backbone, name=task.name)
    head = form.head(encoder.config.hidden_size, task, encoder.config.hidden_dropout_prob)
    assert head is not None
    return Job(task, form, features, TaskModel(encoder, head), backbone.tokenizer.pad_token_id)


def training(
    of: Job, settings: TrainingSettings = NUMBERS, *, seed: int = 3, token_budget: int | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None, monitors: Sequence[Monitor] = (),
) -> Training:  # fmt: skip
    """A training that keeps its last parameters unless `evaluate` says otherwise."""
    dev = itertools.count()
    evaluate = evaluate or (lambda: {"accuracy": float(next(dev))})
    return Training(
        of.model, [TrainingPart(of.form, of.features)], settings, seed=seed, pad_token_id=of.pad,
        accelerator=make_accelerator(settings.dtype), evaluate=evaluate, metric="accuracy", monitors=list(monitors),
        token_budget=token_budget,
    )  # fmt: skip


def changed(**numbers: Any) -> TrainingSettings:
    return TrainingSettings.model_validate(NUMBERS.model_dump() | numbers)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    differing = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not differing


class Recorder:
    """A monitor that keeps everything it is told."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.selections: list[tuple[int, bool]] = []

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self.steps.append({"step": step, "total": total, **values})

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None:
        self.selections.append((step, best))


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def still(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The tiny backbone without dropout, for comparisons that draw no random numbers."""
    return Backbone(str(without_dropout(tiny_backbone, tmp_path_factory.mktemp("still") / "xlm-r")))


def without_dropout(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


# parity with the trainers of the libraries


class Recording(Trainer):
    """Reads the rows in their order and keeps each step's loss, which the log would round to four digits."""

    losses: list[float]
    norms: list[float]
    rates: list[float]

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss.item())
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "grad_norm" in logs:
            self.norms.append(logs["grad_norm"])
            self.rates.append(logs["learning_rate"])


class RecordingAdapterTrainer(Recording, adapters.AdapterTrainer):
    pass


def trained_by_the_library(trainer: type[Recording], model: nn.Module, ours: Job, backbone: Backbone, folder: Path) -> Recording:  # fmt: skip
    """Train `model` with Hugging Face's loop, numbers and padding, on our batches in our order."""
    assert len(ours.features) % BATCH == 0
    order: list[int] = []
    for epoch in range(math.ceil(20 * BATCH / len(ours.features))):
        batches = optimizer_batches(ours.features.lengths, batch_size=BATCH, seed=3, epoch=epoch)
        order += [row for batch in batches for row in batch]
    labels = ours.features.labels or []
    rows = [{"input_ids": ours.features.input_ids[row], "labels": labels[row]} for row in order]
    pad = {
        "classification": transformers.DataCollatorWithPadding,
        "tagging": transformers.DataCollatorForTokenClassification,
    }[ours.task.format]
    numbers = {name: getattr(NUMBERS, name) for name in ("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "warmup_ratio", "max_steps")}  # fmt: skip
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=BATCH, logging_steps=1, save_strategy="no", report_to=[],
        disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3, **numbers,
    )  # fmt: skip
    found = trainer(model, arguments, train_dataset=rows, data_collator=pad(backbone.tokenizer))  # type: ignore[arg-type]
    found.losses, found.norms, found.rates = [], [], []
    found.train()
    return found


def assert_parity(ours: Job, theirs: Recording, names: dict[str, str]) -> None:
    """Equal losses, gradient norms, learning rates and, under `names` (theirs by ours), trained parameters."""
    recorder = Recorder()
    losses = training(ours, monitors=[recorder]).run().losses
    assert len(losses) == len(theirs.losses) == 20
    assert losses == pytest.approx(theirs.losses, abs=1e-5)
    assert [step["grad_norm"] for step in recorder.steps] == pytest.approx(theirs.norms, rel=1e-3)
    assert min(theirs.norms) > NUMBERS.max_grad_norm, "every step is clipped"
    assert [step["learning_rate"] for step in recorder.steps] == pytest.approx(theirs.rates, rel=1e-12)
    assert max(losses) - min(losses) > 0.01, "something was learnt"
    mine, other = ours.model.state_dict(), theirs.model.state_dict()
    for name, their_name in names.items():
        torch.testing.assert_close(mine[name], other[their_name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("regime", ["seq_bn", "double_seq_bn"])
def test_an_adapter_trains_as_under_adapter_trainer(regime: str, still: Backbone, tmp_path: Path) -> None:
    ours = job(still, regime)
    spec = SPECS[regime]
    assert isinstance(spec, AdapterSpec)
    model = adapters.AutoAdapterModel.from_pretrained(still.folder)
    model.add_classification_head("xnli", num_labels=3, layers=2, activation_function="tanh", use_pooler=False)
    config = {"seq_bn": adapters.SeqBnConfig, "double_seq_bn": adapters.DoubleSeqBnConfig}[regime]
    model.add_adapter("xnli", config(reduction_factor=spec.reduction_factor, non_linearity=spec.non_linearity))
    names = {f"encoder.{name}": f"roberta.{name}" for name in ours.model.encoder.state_dict()}
    for part in ("weight", "bias"):
        names |= {f"head.dense.{part}": f"heads.xnli.1.{part}", f"head.out_proj.{part}": f"heads.xnli.4.{part}"}
    copy_parameters(ours.model, model, names, spare=("roberta.pooler.",))
    model.train_adapter("xnli")
    theirs = trained_by_the_library(RecordingAdapterTrainer, model, ours, still, tmp_path)
    assert_parity(ours, theirs, names)


@pytest.mark.parametrize("format", TARGETS)
def test_full_fine_tuning_is_that_of_trainer(format: str, still: Backbone, tmp_path: Path) -> None:
    ours = job(still, "full", format)
    full = len(ours.features) // BATCH * BATCH  # split sentences give features that fill no batch
    kept = [column[:full] for column in (ours.features.input_ids, ours.features.labels or [], ours.features.row)]
    ours = ours._replace(features=Features(*kept))
    classes = {
        "classification": transformers.XLMRobertaForSequenceClassification,
        "tagging": transformers.XLMRobertaForTokenClassification,
    }
    model = classes[format].from_pretrained(still.folder, num_labels=len(ours.task.labels))
    names = {f"encoder.{name}": f"roberta.{name}" for name in ours.model.encoder.state_dict()}
    for name in ours.model.head.state_dict():
        theirs = name if format == "classification" else name.removeprefix("out_proj.")
        names[f"head.{name}"] = f"classifier.{theirs}"
    copy_parameters(ours.model, model, names)
    trained = trained_by_the_library(Recording, model, ours, still, tmp_path)
    # The gradient of a key's bias is zero but for rounding, which Adam scales up; it moves no output.
    assert_parity(ours, trained, {name: other for name, other in names.items() if not name.endswith("key.bias")})


def copy_parameters(ours: nn.Module, theirs: nn.Module, names: dict[str, str], spare: tuple[str, ...] = ()) -> None:
    """Our parameters into the library's model; nothing of it may be left out but what is spared."""
    state = theirs.state_dict()
    mine = ours.state_dict()
    assert {name for name in state if not name.startswith(spare or "\0")} == set(names.values())
    theirs.load_state_dict(state | {other: mine[name] for name, other in names.items()})


# what must not change the result


@pytest.mark.parametrize("format", TARGETS)
@pytest.mark.parametrize("regime", ["full", "seq_bn"])
def test_the_token_budget_changes_nothing(regime: str, format: str, still: Backbone) -> None:
    """One row at a time, a few, or all at once: the same losses and, free of rounding, the same parameters."""
    losses, states = [], []
    for budget in (1, 4 * LENGTH, 10**9):
        losses.append(training(job(still, regime, format), token_budget=budget).run().losses)
        exact = job(still, regime, format)
        exact.model.double()
        training(exact, token_budget=budget).run()
        states.append(snapshot(exact.model))
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], abs=1e-6)
    for state in states[1:]:
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, states[0][name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("format", TARGETS)
def test_accumulated_batches_equal_one_of_their_size(format: str, backbone: Backbone) -> None:
    runs = []
    for batch_size, accumulation in ((16, 1), (4, 4), (1, 16)):
        of = job(backbone, "seq_bn", format)
        numbers = changed(per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation)
        runs.append((training(of, numbers).run().losses, snapshot(of.model)))
    for losses, state in runs[1:]:
        assert losses == runs[0][0]
        assert_same(state, runs[0][1])


def test_the_loss_is_the_mean_over_the_whole_batch_of_words(still: Backbone) -> None:
    """Of words, not of sentences or micro-batches: a long sentence weighs more than a short one."""
    of = job(still, "full", "tagging")
    first = next(optimizer_batches(of.features.lengths, batch_size=BATCH, seed=3, epoch=0))
    batch = collate(of.features, first, of.pad)
    logits = of.model(batch["input_ids"], batch["attention_mask"])
    expected = nn.functional.cross_entropy(logits[batch["labels"] != -100], batch["labels"][batch["labels"] != -100])
    for budget in (1, 10**9):
        found = training(job(still, "full", "tagging"), changed(max_steps=1), token_budget=budget).run().losses
        assert found == pytest.approx([expected.item()], abs=1e-6)


def test_evaluation_between_steps_changes_no_step(backbone: Backbone) -> None:
    def losses(evaluates: bool) -> list[float]:
        of = job(backbone)
        values = itertools.count()

        def evaluate() -> dict[str, float]:
            if evaluates:
                predict_logits(of.model, of.features, pad_token_id=1, token_budget=512, device=torch.device("cpu"))
            return {"accuracy": float(next(values))}

        return training(of, changed(eval_steps=3), evaluate=evaluate).run().losses

    assert losses(True) == losses(False)


def test_dropout_acts_in_training(backbone: Backbone, still: Backbone) -> None:
    with_it, without = (training(job(which)).run().losses for which in (backbone, still))
    assert with_it[0] != pytest.approx(without[0], abs=1e-5)


def test_numbers_and_seed_alone_decide(backbone: Backbone) -> None:
    def losses(seed: int, drawn_before: int) -> list[float]:
        of = training(job(backbone), seed=seed)
        torch.rand(drawn_before)
        return of.run().losses

    assert losses(3, 0) == losses(3, 7)
    assert losses(3, 0) != losses(4, 0)


def exact_losses(folder: str) -> str:
    """What the next test compares: losses of two regimes with dropout, to the last bit."""
    lines = []
    for regime, format in (("full", "classification"), ("seq_bn", "tagging")):
        losses = training(job(Backbone(folder), regime, format), changed(max_steps=10)).run().losses
        lines.append(" ".join(loss.hex() for loss in losses))
    return "\n".join(lines)


def test_a_new_process_with_another_hash_seed_repeats_the_losses_bit_by_bit(tiny_backbone: Path) -> None:
    code = f"import test_training; print(test_training.exact_losses({str(tiny_backbone)!r}))"
    env = os.environ | {"PYTHONHASHSEED": "4711"}
    new = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env=env, check=True, capture_output=True, text=True
    )
    assert new.stdout.strip() == exact_losses(str(tiny_backbone))
    assert len(new.stdout.split()) == 20


# kept losses


@pytest.fixture(scope="module")
def fixed(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The tiny backbone's weights without dropout, and pieces that are the same in every session.

    The trainer of unigram pieces numbers them anew in every process; that of byte pairs does not.
    """
    folder = without_dropout(tiny_backbone, tmp_path_factory.mktemp("fixed") / "xlm-r")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=specials, show_progress=False)
    rows = EmbeddedSource().load(get_task("mnli"), "en", "train", limit=300)
    tokenizer.train_from_iterator(rows.columns["text_a"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    XLMRobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=512).save_pretrained(folder)
    return Backbone(str(folder))


@pytest.mark.parametrize("format", TARGETS)
@pytest.mark.parametrize("regime", SPECS)
def test_losses_are_those_kept(regime: str, format: str, fixed: Backbone) -> None:
    assert max(fixed.tokenizer.get_vocab().values()) < fixed.config.vocab_size
    losses = training(job(fixed, regime, format), changed(max_steps=12)).run().losses
    path = GOLDEN / f"losses_{regime}_{format}.txt"
    if os.environ.get("XADAPT_REGENERATE"):
        path.write_text("".join(f"{step} {loss!r}\n" for step, loss in enumerate(losses, start=1)))
    kept = [line.split() for line in path.read_text().splitlines()]
    assert [int(step) for step, _ in kept] == list(range(1, 13))
    assert losses == pytest.approx([float(loss) for _, loss in kept], rel=1e-5)


# selection


def scripted(model: nn.Module, values: Sequence[float]) -> tuple[Callable[[], dict[str, float]], list[dict[str, Tensor]]]:  # fmt: skip
    """An evaluation that returns these values in turn, and the parameters it saw."""
    seen: list[dict[str, Tensor]] = []

    def evaluate() -> dict[str, float]:
        seen.append(snapshot(model))
        return {"accuracy": values[len(seen) - 1], "f1": -values[len(seen) - 1]}

    return evaluate, seen


@pytest.mark.parametrize("regime", SPECS)
@pytest.mark.parametrize(
    ("values", "best"),
    [([10, 90, 30, 20], 1), ([10, 20, 30, 90], 3), ([90, 10, 20, 30], 0), ([10, 70, 70, 20], 1), ([0, 0, 0, 0], 0)],
    ids=["in between", "last", "first", "the earlier of two", "all the same"],
)
def test_the_best_on_dev_is_kept_and_restored(regime: str, values: list[float], best: int, backbone: Backbone) -> None:
    of = job(backbone, regime, rows=48)
    evaluate, seen = scripted(of.model, values)
    recorder = Recorder()
    numbers = changed(max_steps=12, eval_steps=3, weight_decay=0.1)
    result = training(of, numbers, evaluate=evaluate, monitors=[recorder]).run()
    steps = [3, 6, 9, 12]
    assert [step for step, _ in recorder.selections] == steps
    assert [at for at, (_, better) in enumerate(recorder.selections) if better][-1] == best
    assert (result.best_metric, result.best_step) == (values[best], steps[best])
    assert len(result.losses) == 12, "training goes on after the best"
    assert_same(snapshot(of.model), seen[best])
    assert not torch.equal(seen[0]["head.out_proj.weight"], seen[3]["head.out_proj.weight"])
    rates = [step["learning_rate"] for step in recorder.steps[: steps[best]]]
    assert result.decay == pytest.approx(math.prod(1 - rate * 0.1 for rate in rates), rel=1e-12)


def test_dev_is_looked_at_after_every_epoch_and_at_the_end(backbone: Backbone) -> None:
    of = job(backbone, rows=40)
    evaluate, _ = scripted(of.model, [1, 2, 3])
    recorder = Recorder()
    training(of, changed(max_steps=12), evaluate=evaluate, monitors=[recorder]).run()
    assert recorder.selections == [(5, True), (10, True), (12, True)]


def test_the_headline_metric_selects(backbone: Backbone) -> None:
    of = job(backbone, rows=48)
    evaluate, seen = scripted(of.model, [10, 90, 30, 20])
    of_training = training(of, changed(max_steps=12, eval_steps=3), evaluate=evaluate)
    of_training.metric = "f1"
    assert of_training.run().best_step == 3
    assert_same(snapshot(of.model), seen[0])


# optimizer and schedule


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.33, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 40])
def test_the_learning_rate_rises_and_falls_as_in_transformers(warmup: float, steps: int, tmp_path: Path) -> None:
    numbers = changed(warmup_ratio=warmup, max_steps=steps)
    layer = nn.Linear(2, 2)
    optimizer = make_optimizer(layer.named_parameters(), numbers)
    schedule = make_schedule(optimizer, numbers, steps)
    arguments = TrainingArguments(str(tmp_path), warmup_ratio=warmup, lr_scheduler_type="linear", report_to=[])
    theirs = Trainer(layer, arguments, optimizers=(torch.optim.SGD(layer.parameters(), lr=2e-3), None))
    theirs.args.learning_rate = 2e-3
    other = theirs.create_scheduler(steps, theirs.optimizer)
    rising = math.ceil(warmup * steps)
    for step in range(steps):
        rate = schedule.get_last_lr()[0]
        assert rate / numbers.learning_rate == pytest.approx(other.get_last_lr()[0] / 2e-3, rel=1e-12)
        by_hand = step / rising if step < rising else (steps - step) / (steps - rising)
        assert rate == pytest.approx(numbers.learning_rate * by_hand, rel=1e-12)
        for one in (optimizer, theirs.optimizer, schedule, other):
            one.step()
    assert schedule.get_last_lr() == [0.0, 0.0]


@pytest.mark.parametrize("regime", SPECS)
def test_biases_and_layer_norms_do_not_decay(regime: str, backbone: Backbone) -> None:
    """With gradients of zero all that moves is what decays: what transformers' trainer decays, to the factor."""
    of = job(backbone, regime)
    numbers = changed(weight_decay=0.1, learning_rate=0.5)
    trainable = {name: parameter for name, parameter in of.model.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for parameter in trainable.values():
            parameter.fill_(2.0)
            parameter.grad = torch.zeros_like(parameter)
    make_optimizer(trainable.items(), numbers).step()
    theirs = set(Trainer.get_decay_parameter_names(None, of.model))  # type: ignore[arg-type]
    for name, parameter in trainable.items():
        expected = 2.0 * (1 - 0.5 * 0.1) if name in theirs else 2.0
        assert torch.all(parameter == torch.tensor(expected)), name
    kinds = {name in theirs for name in trainable}
    assert kinds == {True, False}


def test_adams_numbers_are_those_of_the_settings(backbone: Backbone) -> None:
    of = training(job(backbone), changed(adam_epsilon=1e-3, learning_rate=0.25, weight_decay=0.125))
    for group, decay in zip(of.optimizer.param_groups, (0.125, 0.0), strict=True):
        found = (group["initial_lr"], group["eps"], group["betas"], group["weight_decay"], group["amsgrad"])
        assert found == (0.25, 1e-3, (0.9, 0.999), decay, False)


@pytest.mark.parametrize(
    ("numbers", "steps"),
    [
        ({"max_steps": 3, "num_train_epochs": 50}, 3),
        ({"max_steps": 23, "num_train_epochs": 1}, 23),
        ({"max_steps": None, "num_train_epochs": 2}, 20),
        ({"max_steps": None, "num_train_epochs": 1.25}, 13),
        ({"max_steps": None, "num_train_epochs": 1, "gradient_accumulation_steps": 3}, 4),
    ],
)
def test_max_steps_overrides_epochs(numbers: dict[str, Any], steps: int, backbone: Backbone) -> None:
    of = training(job(backbone), changed(**numbers))
    assert of.total_steps == steps
    assert len(of.run().losses) == steps


def test_clipping_can_be_left_out(still: Backbone) -> None:
    recorder = Recorder()
    clipped, never, far = (
        training(job(still, "full"), changed(max_grad_norm=limit), monitors=[recorder]).run().losses
        for limit in (0.05, 0, 1e9)
    )
    assert never == far
    assert clipped != never
    assert recorder.steps[0]["grad_norm"] == recorder.steps[20]["grad_norm"] > 0.05, "the norm is that before clipping"


# divergence


def test_a_loss_that_is_not_finite_stops_with_step_and_remedy(backbone: Backbone) -> None:
    of = job(backbone, "full")
    recorder = Recorder()
    numbers = NUMBERS.model_copy(update={"learning_rate": 1e20})  # beyond what the settings accept
    with pytest.raises(UserError, match=r"at step (\d+): .* (nan|inf), .* 1e\+20; lower --learning-rate") as error:
        training(of, numbers, monitors=[recorder]).run()
    # the first step of a warm-up has a rate of zero, the second has not
    assert "at step 3:" in str(error.value)
    assert [step["step"] for step in recorder.steps] == [1, 2]
    assert all(math.isfinite(value) for step in recorder.steps for value in step.values())
    assert not recorder.selections


@pytest.mark.parametrize("planted", ["nan", "inf"])
def test_a_gradient_that_is_not_finite_stops_before_it_is_applied(planted: str, backbone: Backbone) -> None:
    """At the last step too, after which no loss would tell."""
    of = job(backbone)
    states: list[dict[str, Tensor]] = []

    def plant(gradient: Tensor) -> Tensor:
        states.append(snapshot(of.model))
        return torch.full_like(gradient, float(planted)) if len(states) == 4 else gradient

    of.model.head.out_proj.weight.register_hook(plant)  # type: ignore[union-attr]
    recorder = Recorder()
    with pytest.raises(
        UserError, match=f"at step 4: the gradient of head.out_proj.weight has {planted}, .* lower --learning-rate"
    ):
        training(of, changed(max_steps=4), token_budget=10**9, monitors=[recorder]).run()
    assert_same(snapshot(of.model), states[3])
    assert len(recorder.steps) == 3
    assert not recorder.selections


def test_a_weight_that_is_not_finite_stops_the_first_step(backbone: Backbone) -> None:
    of = job(backbone)
    with torch.no_grad():
        of.model.head.out_proj.bias[0] = math.nan  # type: ignore[index,union-attr]
    with pytest.raises(UserError, match=r"at step 1: the parameter head\.out_proj\.bias has nan"):
        training(of).run()


def test_a_training_that_diverges_leaves_no_result(tiny_backbone: Path, tmp_path: Path) -> None:
    """Through a whole study: a decay of ninefold growth, which the settings accept, and no file but the lock."""
    numbers = {"learning_rate": 10, "weight_decay": 1, "max_steps": 200, "warmup_ratio": 0, "dtype": "float32"}
    recipe = Recipe.model_validate(
        {
            "name": "diverges", "backbone": str(tiny_backbone), "data": "embedded", "targets": ["xnli"],
            "languages": ["de"], "regimes": {"full": {}}, "training": numbers | {"max_seq_length": 32},
            "max_train_samples": 32, "max_eval_samples": 8, "max_predict_samples": 8,
        }
    )  # fmt: skip
    outcomes = run_plan(make_plan(recipe), Store(tmp_path), Silent())
    assert [outcome.status for outcome in outcomes] == ["failed", "not run"]
    assert isinstance(outcomes[0].error, UserError)
    assert "lower --learning-rate" in str(outcomes[0].error)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".lock"}


# precision


def test_bfloat16_stays_near_float32(still: Backbone) -> None:
    def run(dtype: str) -> tuple[FitResult, Job]:
        of = job(still, "full")
        return training(of, changed(dtype=dtype)).run(), of

    (exact, _), (rough, of), (again, _) = run("float32"), run("bfloat16"), run("float32")
    assert all(map(math.isfinite, rough.losses))
    assert rough.losses == pytest.approx(exact.losses, abs=0.02)
    assert rough.losses != exact.losses
    assert again.losses == exact.losses, "the next stage of the process is not affected"
    assert {parameter.dtype for parameter in of.model.parameters()} == {torch.float32}
    logits = predict_logits(of.model, of.features, pad_token_id=of.pad, token_budget=512, device=torch.device("cpu"))
    assert {tensor.dtype for tensor in logits} == {torch.float32}


# what is told


@pytest.mark.parametrize("change", [lambda text: text.replace("1", "2"), lambda text: text + "\n", lambda text: ""])
def test_a_log_that_is_not_what_was_written_is_never_copied(tmp_path: Path, change: Callable[[str], str]) -> None:
    with JsonLog(tmp_path / "log.jsonl") as log:
        log.step(1, 2, {"loss": 1.5})
        log.copy(tmp_path / "copy")
        assert json.loads((tmp_path / "copy").read_text()) == {"step": 1, "loss": 1.5}
        log.path.write_text(change(log.path.read_text()))
        with pytest.raises(UserError, match=str(log.path)):
            log.copy(tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_the_log_is_one_line_of_json_a_step(backbone: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines: list[int] = []

    class Reader(Recorder):
        """Comes after the log, so it must find every line written."""

        def step(self, step: int, total: int, values: dict[str, float]) -> None:
            super().step(step, total, values)
            lines.append(len(path.read_text().splitlines()))

    reader = Reader()
    with JsonLog(path) as log:
        result = training(job(backbone), changed(max_steps=12), monitors=[log, reader]).run()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    written = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    steps = [line for line in written if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert [line["loss"] for line in steps] == result.losses, "to the last bit"
    told = [{name: value for name, value in step.items() if name != "total"} for step in reader.steps]
    assert steps == told
    assert {"loss", "grad_norm", "learning_rate", "epoch"} < set(steps[0])
    assert lines == [*range(1, 11), 12, 13], "flushed at once; a selection follows the tenth step"
    assert [line for line in written if "dev" in line] == [
        {"step": 10, "epoch": 1.0, "dev": {"accuracy": 0.0}, "best": True},
        {"step": 12, "epoch": 1.2, "dev": {"accuracy": 1.0}, "best": True},
    ]


def test_the_result_counts_examples_and_padding(backbone: Backbone) -> None:
    of = job(backbone)
    result = training(of, changed(max_steps=10), token_budget=1).run()
    assert (result.examples, result.tokens, result.padding) == (80, sum(of.features.lengths), 0.0)
    padded = training(job(backbone), changed(max_steps=10), token_budget=10**9).run()
    batches = optimizer_batches(of.features.lengths, batch_size=BATCH, seed=3, epoch=0)
    positions = sum(BATCH * max(of.features.lengths[row] for row in batch) for batch in batches)
    assert padded.padding == pytest.approx(1 - sum(of.features.lengths) / positions)
    assert result.examples_per_second == result.examples / result.seconds > 0


if __name__ == "__main__":
    os.environ["XADAPT_REGENERATE"] = "1"
    sys.exit(pytest.main([__file__, "-k", "losses_are_those_kept", "-q"]))

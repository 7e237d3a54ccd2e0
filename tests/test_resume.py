"""A training that is stopped at any step and begun anew is, to the last bit, the one that was not."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import SPECS, Job, changed, job, snapshot
from torch import Tensor

from xadapt.data.sources import EmbeddedSource
from xadapt.formats import FORMATS
from xadapt.interruption import Interrupted, check, request, requested, resumable
from xadapt.models.backbone import Backbone, start_language_head
from xadapt.models.task_model import MultiTaskModel, TaskModel, shares_embedding
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FusionSpec
from xadapt.tasks import get_task
from xadapt.training.checkpoint import Checkpoints
from xadapt.training.device import make_accelerator
from xadapt.training.log import JsonLog
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.prediction import predict_logits
from xadapt.training.settings import Mixing, SaveEvery, TrainingSettings
from xadapt.training.state import random_states

STEPS = 8
SETTINGS = changed(max_steps=STEPS, eval_steps=3, max_grad_norm=0.5)
TIMES = ("examples_per_second",)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


class StopAt:
    """A monitor that asks this process to stop, by a signal, when a step is told of, or a selection."""

    def __init__(self, step: int, *, selecting: bool = False) -> None:
        self.at, self.selecting = step, selecting

    def step(self, step: int, total: int, values: dict[str, Any]) -> None:
        if step == self.at and not self.selecting:
            os.kill(os.getpid(), signal.SIGTERM)

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


Make = Callable[..., Training]


def single(backbone: Backbone, regime: str, format: str) -> Make:
    def make(folder: Path, *monitors: Any, **more: Any) -> Training:
        of: Job = job(backbone, regime, format, rows=40)
        return assembled(of.model, [TrainingPart(of.form, of.features)], of.pad, folder, *monitors, **more)

    return make


def fusion(backbone: Backbone, regime: str, train_on: str) -> Make:
    """Attention over two modules, under a target's own module or alone, with the penalty on its value matrices."""

    def make(folder: Path, *monitors: Any, **more: Any) -> Training:
        folder.mkdir(exist_ok=True)
        of, spec = job(backbone, "full", "classification", rows=40), SPECS[regime]
        name = None if train_on == "mixture" else "target"
        torch.manual_seed(4)
        way = open_regime(spec)
        encoder = way.attach(backbone, name=name, fuse=modules(backbone, regime, folder), fusion=FusionSpec())
        model = TaskModel(encoder, of.form.head(encoder.config.hidden_size, of.task, 0.1))
        part = TrainingPart(of.form, of.features)
        return assembled(model, [part], of.pad, folder, *monitors, penalty=lambda: way.penalty(encoder), **more)

    return make


def modules(backbone: Backbone, regime: str, folder: Path) -> Sequence[Path]:
    """Artefacts of two modules with random parameters, the same for every folder."""
    folders = [folder / name for name in ("first", "second")]
    for seed, at in enumerate(folders):
        if not at.exists():
            torch.manual_seed(seed)
            encoder = open_regime(SPECS[regime]).attach(backbone, name=at.name)
            for _, parameter in open_regime(SPECS[regime]).trainable(encoder):
                parameter.data.add_(0.2 * torch.randn_like(parameter))
            open_regime(SPECS[regime]).save(encoder, at, name=at.name)
    return folders


def mixture(backbone: Backbone) -> Make:
    """Three tasks of three formats, one of them masked language modelling, which draws what it hides."""

    def make(folder: Path, *monitors: Any, **more: Any) -> Training:
        parts, heads, encoder = [], {}, None
        torch.manual_seed(2)
        encoder = open_regime(AdapterSpec(reduction_factor=4)).attach(backbone, name="multitask")
        for name in ("mnli", "hellaswag", "mlm"):
            task = get_task(name)
            form = FORMATS[task.format]
            rows = EmbeddedSource().load(task, "en", "train", limit=24)
            features = form.encode(rows, task, backbone.tokenizer, 64)
            head = form.head(encoder.config.hidden_size, task, 0.1)
            assert head is not None
            if shares_embedding(head):
                start_language_head(head, encoder, backbone.folder)
            heads[name] = head
            parts.append(TrainingPart(form, features, name, auxiliary=name == "mlm"))
        model = MultiTaskModel(encoder, heads)
        pad = backbone.tokenizer.pad_token_id
        return assembled(model, parts, pad, folder, *monitors, mixing=Mixing(mlm_ratio=0.3), **more)

    return make


def assembled(model: torch.nn.Module, parts: list[TrainingPart], pad: int, folder: Path, *monitors: Any, settings: TrainingSettings = SETTINGS, **more: Any) -> Training:  # fmt: skip
    """A training whose dev score is a number of its parameters, the best of which comes early."""
    folder.mkdir(exist_ok=True)

    logs = [JsonLog(folder / "log.jsonl")] if os.environ.get("RANK", "0") == "0" else []

    def evaluate() -> dict[str, float]:
        device = next(model.parameters()).device
        predict_logits(FirstHead(model), parts[0].features, pad_token_id=pad, token_budget=512, device=device)
        return {"accuracy": -sum(float(p.detach().double().abs().sum()) for p in model.parameters())}

    return Training(
        model, parts, settings, seed=3, pad_token_id=pad, accelerator=make_accelerator(settings.dtype), evaluate=evaluate,
        metric="accuracy", monitors=[*logs, *monitors],
        checkpoints=Checkpoints(folder / "checkpoints", SaveEvery()), **more,
    )  # fmt: skip


class FirstHead(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: Tensor) -> Tensor:
        task = {"task": "mnli"} if isinstance(self.model, MultiTaskModel) else {}
        logits: Tensor = self.model(**batch, **task)
        return logits


def everything(training: Training, folder: Path) -> dict[str, Any]:
    """All that must not depend on where a training was stopped."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    result = training.result
    return {
        "parameters": {name: tensor.cpu().numpy().tobytes() for name, tensor in snapshot(training.model).items()},
        "optimizer": [
            {key: value.cpu().numpy().tobytes() for key, value in training.optimizer.state.get(p, {}).items()}
            for _, p in training.trainable
        ],
        "losses": result.losses,
        "result": (
            result.best_metric,
            result.best_step,
            result.decay,
            result.examples,
            result.tokens,
            result.positions,
        ),
        "flops": result.flops_per_step,
        "rates": [group["lr"] for group in training.optimizer.param_groups],
        "random": {name: state.numpy().tobytes() for name, state in random_states(training).items()},
        "log": [{name: value for name, value in line.items() if name not in TIMES} for line in lines],
    }


def stopped(make: Make, folder: Path, *monitors: Any, **more: Any) -> None:
    with resumable(), pytest.raises(Interrupted):
        run(make(folder, *monitors, **more))
    assert requested() is None


def run(training: Training) -> None:
    try:
        training.run()
    finally:
        for monitor in training.monitors:
            if isinstance(monitor, JsonLog):
                monitor.close()


KINDS: dict[str, Callable[[Backbone], Make]] = {
    "full": lambda backbone: single(backbone, "full", "classification"),
    "full tagging": lambda backbone: single(backbone, "full", "tagging"),
    "adapter": lambda backbone: single(backbone, "seq_bn", "classification"),
    "lora": lambda backbone: single(backbone, "lora", "tagging"),
    "mixture": mixture,
    "fusion of adapters": lambda backbone: fusion(backbone, "seq_bn", "mixture"),
    "fusion under a target": lambda backbone: fusion(backbone, "seq_bn", "target"),
    "fusion of loras": lambda backbone: fusion(backbone, "lora", "target"),
}


@pytest.mark.parametrize("steps", [(4,), pytest.param((1, 2, 3, 5, 6, 7), marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_after_any_step_it_goes_on_as_if_it_had_not_been(
    kind: str, steps: tuple[int, ...], backbone: Backbone, tmp_path: Path
) -> None:
    make = KINDS[kind](backbone)
    straight = make(tmp_path / "straight")
    run(straight)
    expected = everything(straight, tmp_path / "straight")
    assert straight.result.best_step < STEPS, "the best parameters are put back"
    for at in steps:
        folder = tmp_path / str(at)
        stopped(make, folder, StopAt(at))
        resumed = make(folder)
        run(resumed)
        assert everything(resumed, folder) == expected
        assert resumed.result.resumed == [at]


def test_stopped_again_and_again(backbone: Backbone, tmp_path: Path) -> None:
    make = single(backbone, "seq_bn", "classification")
    straight = make(tmp_path / "straight")
    run(straight)
    for at in (2, 6):
        stopped(make, tmp_path / "often", StopAt(at))
    resumed = make(tmp_path / "often")
    run(resumed)
    assert everything(resumed, tmp_path / "often") == everything(straight, tmp_path / "straight")
    assert resumed.result.resumed == [2, 6]


@pytest.mark.parametrize("at", [3, STEPS])
def test_stopped_while_it_takes_a_dev_score(at: int, backbone: Backbone, tmp_path: Path) -> None:
    make = single(backbone, "seq_bn", "classification")
    straight = make(tmp_path / "straight")
    run(straight)
    training = make(tmp_path / "stopped")
    whole = training.evaluate

    def interrupted() -> dict[str, float]:
        if training.steps == at:
            os.kill(os.getpid(), signal.SIGUSR1)
            check()
        return whole()

    training.evaluate = interrupted
    with resumable(), pytest.raises(Interrupted):
        run(training)
    resumed = make(tmp_path / "stopped")
    run(resumed)
    assert everything(resumed, tmp_path / "stopped") == everything(straight, tmp_path / "straight")


def test_what_came_after_the_last_checkpoint_is_done_again(backbone: Backbone, tmp_path: Path) -> None:
    """As after a power cut: checkpoints every three steps, an end in the middle of step 5, lines already logged."""
    make = single(backbone, "lora", "classification")
    straight = make(tmp_path / "straight")
    run(straight)

    class Cut(StopAt):
        def step(self, step: int, total: int, values: dict[str, Any]) -> None:
            if step == self.at:
                raise ZeroDivisionError

    training = make(tmp_path / "cut", Cut(5))
    training.checkpoints = Checkpoints(tmp_path / "cut" / "checkpoints", SaveEvery(steps=3))
    with pytest.raises(ZeroDivisionError):
        run(training)
    resumed = make(tmp_path / "cut")
    run(resumed)
    assert resumed.result.resumed == [3]
    assert everything(resumed, tmp_path / "cut") == everything(straight, tmp_path / "straight")


def test_a_log_that_is_too_short_is_not_gone_on_from(backbone: Backbone, tmp_path: Path) -> None:
    make = single(backbone, "seq_bn", "classification")
    straight = make(tmp_path / "straight")
    run(straight)
    stopped(make, tmp_path / "short", StopAt(4))
    (tmp_path / "short" / "log.jsonl").write_text("")
    resumed = make(tmp_path / "short")
    run(resumed)
    assert resumed.result.resumed == []
    assert everything(resumed, tmp_path / "short") == everything(straight, tmp_path / "straight")


@pytest.mark.parametrize(("line", "resumed_at"), [(0, []), (2, [2]), (-1, [2, 4])])
def test_a_log_that_was_changed_is_gone_on_from_where_it_was_not(
    backbone: Backbone, tmp_path: Path, line: int, resumed_at: list[int]
) -> None:
    """A digit of a loss, which no count of bytes shows; what lies behind the last checkpoint is written again anyhow."""
    make = single(backbone, "seq_bn", "classification")
    straight = make(tmp_path / "straight")
    run(straight)
    for step in (2, 4):
        stopped(make, tmp_path / "changed", StopAt(step))
    file = tmp_path / "changed" / "log.jsonl"
    lines = [*file.read_text().splitlines(), '{"step": 5, "loss": 1.0}']
    lines[line] = lines[line].translate(str.maketrans("0123456789", "1234567890"))
    file.write_text("".join(f"{text}\n" for text in lines))
    resumed = make(tmp_path / "changed")
    run(resumed)
    assert resumed.result.resumed == resumed_at
    assert everything(resumed, tmp_path / "changed") == everything(straight, tmp_path / "straight")


def test_a_second_signal_ends_the_process_at_once() -> None:
    child = os.fork()
    if child == 0:
        with resumable():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGINT


@pytest.mark.parametrize("before", ["a request", "the same signal"])
def test_what_says_the_same_thing_twice_ends_nothing(before: str) -> None:
    """A parent's word ahead of the signal itself; a signal that a launcher passes on and a batch system sends as well."""
    child = os.fork()
    if child == 0:
        with resumable():
            if before == "a request":
                request("stop")
            else:
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_new_start_from_an_earlier_step_drops_later_checkpoints(backbone: Backbone, tmp_path: Path) -> None:
    """Or they would push out the new ones, and be gone on from with another log."""
    make = single(backbone, "seq_bn", "classification")
    stopped(make, tmp_path, StopAt(6))
    (tmp_path / "log.jsonl").write_text("")
    stopped(make, tmp_path, StopAt(2))
    assert Checkpoints(tmp_path / "checkpoints", SaveEvery()).steps() == [2]
    resumed = make(tmp_path)
    run(resumed)
    assert resumed.result.resumed == [2]


def test_one_process_of_several_says_when_a_checkpoint_is_due(backbone: Backbone, tmp_path: Path) -> None:
    made = single(backbone, "seq_bn", "classification")(tmp_path)
    made.checkpoints = Checkpoints(tmp_path / "checkpoints", SaveEvery(steps=1))
    made.result.losses = [1.0]
    assert made.due()
    made.ranks.rank = 1
    assert not made.due()
    for monitor in made.monitors:
        if isinstance(monitor, JsonLog):
            monitor.close()


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with resumable():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requested() == "SIGUSR1"
        with pytest.raises(Interrupted):
            check()
    assert requested() is None
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before

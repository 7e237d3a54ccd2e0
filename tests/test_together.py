"""Modules trained side by side on one encoder are those that were trained one after the other.

What differs is the order in which some floating-point numbers are added: 1e-7 of their size. Adam divides a gradient by
its own size, and some gradients are nothing but such differences (the bias in front of a softmax). So the trainings
here take an adam_epsilon far above them.
"""

import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from silent_reporter import Silent
from torch import Tensor

from xadapt.data.sources import EmbeddedSource
from xadapt.errors import UserError
from xadapt.formats import FORMATS
from xadapt.models.backbone import Backbone
from xadapt.models.packing import Packing, Segment, routed_alone
from xadapt.models.task_model import TaskModel
from xadapt.regimes.several import SharedEncoder, attach_several
from xadapt.regimes.specs import AdapterSpec, LoraSpec, RegimeSpec
from xadapt.study.execution import Execution
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_file import make_recipe
from xadapt.study.stage import Stage
from xadapt.study.store import Store, verify
from xadapt.study.together import joint_trainings
from xadapt.tasks import get_task
from xadapt.training.device import make_accelerator
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.result import FitResult, Monitor
from xadapt.training.settings import TrainingSettings
from xadapt.training.together import Together
from xadapt_cli.app import main
from xadapt_cli.progress import ConsoleReporter

NEAR = {"rtol": 1e-5, "atol": 1e-5}
TASKS = ("hellaswag", "mnli", "squad")
REGIMES: dict[str, dict[str, Any]] = {
    "seq_bn": {"adapter": {"config": "seq_bn", "reduction_factor": 4}},
    "double_seq_bn": {"adapter": {"config": "double_seq_bn", "reduction_factor": 4, "non_linearity": "swish"}},
    "lora": {"lora": {"r": 4, "lora_dropout": 0.1}},
    "dora": {"lora": {"r": 4, "target_modules": ["query", "intermediate.dense"], "use_dora": True}},
}
TRAINING = {
    "learning_rate": 2e-3, "per_device_train_batch_size": 8, "num_train_epochs": 2, "max_seq_length": 64,
    "weight_decay": 0.01, "adam_epsilon": 1e-5, "max_grad_norm": 0.5, "eval_steps": 3, "dtype": "float32",
}  # fmt: skip
# No two of the tasks end at the same step. A batch of hellaswag is cut into two, and there is room beside the second.
PER_TASK = {
    "hellaswag": {"per_device_train_batch_size": 10, "num_train_epochs": 1.5, "learning_rate": 5e-3},
    "mnli": {"per_device_train_batch_size": 3},
    "squad": {"per_device_train_batch_size": 4},
}

Make = Callable[..., Recipe]


@pytest.fixture
def make(tiny_backbone: Path) -> Make:
    """A recipe of three formats on the embedded suite, with dropout."""

    def made(regime: str = "seq_bn", **changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "backbone": str(tiny_backbone), "data": "embedded", "seed": 5, "intermediate": TASKS,
            "regimes": REGIMES[regime], "training": TRAINING, "tasks": PER_TASK, "max_train_samples": 24,
            "max_eval_samples": 12,
        }  # fmt: skip
        return make_recipe(values | changes, place="the test")

    return made


class Watch(Silent):
    """A reporter that is called at every step, and may interfere."""

    def __init__(self, meddle: Callable[[str, int], None] = lambda task, step: None) -> None:
        self.meddle = meddle
        self.trained: list[str] = []

    def monitors(self, stage: Stage) -> list[Monitor]:
        return [_Meddler(self, task_of(stage))]


class _Meddler:
    def __init__(self, watch: Watch, task: str) -> None:
        self.watch, self.task = watch, task

    def step(self, step: int, total: int, values: dict[str, Any]) -> None:
        if step == 1:
            self.watch.trained.append(self.task)
        self.watch.meddle(self.task, step)

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


def task_of(stage: Stage) -> str:
    spec = stage.spec["tasks"][0] if "tasks" in stage.spec else stage.spec
    return str(spec["dev"]["task"])


def run(recipe: Recipe, store: Store, *, together: bool = True, watch: Watch | None = None) -> dict[str, Outcome]:
    """Outcomes by task."""
    outcomes = run_plan(make_plan(recipe), store, watch or Watch(), execution=Execution(together=together))
    return {task_of(outcome.stage): outcome for outcome in outcomes}


def statuses(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    return {task: outcome.status for task, outcome in outcomes.items()}


def assert_same(found: Outcome, expected: Outcome) -> None:
    """The same stage with the same files; numbers, bar clocks and memory, are near."""
    assert found.result
    assert expected.result
    assert found.stage.key == expected.stage.key
    verify(found.result)
    manifests = found.result.manifest, expected.result.manifest
    files = [set(manifest["files"]) for manifest in manifests]
    assert files[0] == files[1] >= {"head.safetensors", "log.jsonl"}
    for name in files[0]:
        paths = found.result.folder / name, expected.result.folder / name
        if name.endswith(".safetensors"):
            assert_near(load_file(paths[0]), load_file(paths[1]))
        elif name.endswith(".jsonl"):
            assert_same_log(*map(lines, paths))
        else:
            assert paths[0].read_bytes() == paths[1].read_bytes()
    measured = {"seconds", "examples_per_second", "peak_memory_mib"}
    records = [manifest["record"] for manifest in manifests]
    assert records[0].keys() == records[1].keys() >= measured
    for key in records[0].keys() - measured:
        assert near(records[0][key], records[1][key]), key
    assert records[0]["seconds"] > 0


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], **NEAR)


def assert_same_log(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) > 3
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(near(mine[key], theirs[key]) for key in mine if key != "examples_per_second"), (mine, theirs)


def near(found: Any, expected: Any) -> bool:
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(near(found[key], expected[key]) for key in found)
    if isinstance(found, float):
        return math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-5)
    return bool(found == expected)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("regime", REGIMES)
def test_side_by_side_is_one_after_the_other(regime: str, make: Make, tmp_path: Path) -> None:
    recipe = make(regime)
    alone, watch = Watch(), Watch()
    expected = run(recipe, Store(tmp_path / "alone"), together=False, watch=alone)
    found = run(recipe, Store(tmp_path / "together"), watch=watch)
    assert statuses(found) == statuses(expected) == dict.fromkeys(TASKS, "succeeded")
    ends = {outcome.result.record["steps"] for outcome in found.values() if outcome.result}
    assert len(ends) == len(TASKS), "the tasks are to end at different steps"
    for task in TASKS:
        assert_same(found[task], expected[task])
        assert found[task].result.manifest["provenance"]["together"] == [  # type: ignore[union-attr]
            outcome.stage.label for outcome in found.values()
        ]
    assert alone.trained == watch.trained == list(TASKS)


def test_dropout_is_on(make: Make, tiny_backbone: Path, tmp_path: Path) -> None:
    """What is compared above draws masks: without dropout the losses are others."""
    still = tmp_path / "still"
    shutil.copytree(tiny_backbone, still)
    config = json.loads((still / "config.json").read_text())
    off = {name: 0.0 for name in config if name.endswith("dropout_prob")}
    assert len(off) == 2
    (still / "config.json").write_text(json.dumps(config | off))
    drawn, plain = (run(made, Store(tmp_path / "store")) for made in (make(), make(backbone=str(still))))
    for task in TASKS:
        losses = [[line["loss"] for line in log_of(outcome[task]) if "loss" in line] for outcome in (drawn, plain)]
        assert max(abs(one - other) for one, other in zip(*losses, strict=True)) > 1e-3


def test_bfloat16_stays_as_near_as_it_can(make: Make, tmp_path: Path) -> None:
    recipe = make(training=TRAINING | {"dtype": "bfloat16"}, max_train_samples=12)
    expected = run(recipe, Store(tmp_path / "alone"), together=False)
    found = run(recipe, Store(tmp_path / "together"))
    for task in TASKS:
        losses = [[line["loss"] for line in log_of(outcome[task]) if "loss" in line] for outcome in (found, expected)]
        assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_masked_language_modelling_mixed_in_stays_with_its_task(make: Make, tmp_path: Path) -> None:
    """Two heads a training: each step's head is that of its part, on either side."""
    recipe = make("lora", mixture={"mlm_ratio": 0.5}, intermediate=["mnli", "hellaswag"])
    expected = run(recipe, Store(tmp_path / "alone"), together=False)
    found = run(recipe, Store(tmp_path / "together"))
    for task in ("mnli", "hellaswag"):
        assert_same(found[task], expected[task])
        assert {line["task"] for line in log_of(found[task]) if "loss" in line} == {task, "mlm"}


def test_a_study_afterwards_finds_them(make: Make, tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(make(), store)
    stacked = {"adapter": REGIMES["seq_bn"]["adapter"] | {"compositions": ["stack"]}}
    recipe = make(targets=["udpos"], languages=["de"], regimes=stacked, max_predict_samples=4, together=True)
    outcomes = run_plan(make_plan(recipe), store, Watch(), execution=Execution(together=recipe.together))
    trained = [outcome for outcome in outcomes if not outcome.stage.needs]
    assert [task_of(outcome.stage) for outcome in trained] == list(TASKS)
    assert {outcome.status for outcome in trained} == {"cached"}
    assert {outcome.status for outcome in outcomes if outcome.stage.needs} == {"succeeded"}


@pytest.mark.parametrize("there", [("mnli",), ("mnli", "hellaswag")])
def test_what_the_store_has_is_left_alone(there: tuple[str, ...], make: Make, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    run(make(intermediate=there), store, together=False)
    watch = Watch()
    found = run(make(), store, watch=watch)
    assert statuses(found) == {task: "cached" if task in there else "succeeded" for task in TASKS}
    assert watch.trained == [task for task in TASKS if task not in there]
    expected = run(make(), Store(tmp_path / "alone"), together=False)
    for task in TASKS:
        assert_same(found[task], expected[task])


def test_one_that_diverges_ends_alone(make: Make, tmp_path: Path) -> None:
    """Its loss is no number from a step in the middle on; the others' numbers are those they would be without it."""
    grows = {"learning_rate": 10, "weight_decay": 1, "warmup_ratio": 0, "max_grad_norm": 0, "num_train_epochs": 60}
    longer = {"num_train_epochs": 8}
    recipe = make(tasks={"hellaswag": grows, "mnli": longer}, intermediate=["mnli", "hellaswag"])
    found = run(recipe, Store(tmp_path / "together"))
    assert statuses(found) == {"mnli": "succeeded", "hellaswag": "failed"}
    assert isinstance(found["hellaswag"].error, UserError)
    step = re.search(r"at step (\d+): .* lower --learning-rate", str(found["hellaswag"].error))
    assert step
    assert found["mnli"].result
    assert 1 < int(step[1]) < found["mnli"].result.record["steps"], "while the other is still trained"
    assert left_over(tmp_path / "together") == set()
    expected = run(make(tasks={"mnli": longer}, intermediate=["mnli"]), Store(tmp_path / "alone"), together=False)
    assert_same(found["mnli"], expected["mnli"])


def test_a_failure_of_one_keeps_its_traceback_and_spares_the_others(make: Make, tmp_path: Path) -> None:
    def fail(task: str, step: int) -> None:
        if (task, step) == ("squad", 2):
            raise ZeroDivisionError("made up")

    store = Store(tmp_path)
    found = run(make(), store, watch=Watch(fail))
    assert statuses(found) == {"mnli": "succeeded", "squad": "failed", "hellaswag": "succeeded"}
    (partial,) = left_over(tmp_path)
    assert "ZeroDivisionError: made up" in (partial / "error.txt").read_text()
    assert statuses(run(make(), store)) == {"mnli": "cached", "squad": "succeeded", "hellaswag": "cached"}
    assert left_over(tmp_path) == set()


def test_an_interruption_leaves_whole_results_or_none(make: Make, tmp_path: Path) -> None:
    def interrupt(task: str, step: int) -> None:
        if (task, step) == ("mnli", 8):
            raise KeyboardInterrupt

    store = Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        run(make(), store, watch=Watch(interrupt))
    stages = {task_of(stage): stage for stage in make_plan(make()).stages}
    there = {task: store.find(stage) for task, stage in stages.items()}
    assert {task for task, result in there.items() if result} == {"hellaswag"}, "the only one that had ended"
    found = run(make(), store)
    assert statuses(found) == {"mnli": "succeeded", "squad": "succeeded", "hellaswag": "cached"}
    assert left_over(store.root) == set()
    expected = run(make(), Store(tmp_path / "alone"), together=False)
    for task in TASKS:
        assert_same(found[task], expected[task])


def left_over(root: Path) -> set[Path]:
    return {path for path in root.rglob("*.partial") if path.is_dir()}


def log_of(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.result
    return lines(outcome.result.folder / "log.jsonl")


# the pass itself


def test_a_packed_pass_gives_what_each_batch_gets_alone(tiny_backbone: Path) -> None:
    """Rows of other lengths, with padding and without, more tokens than positions; all tokens or the first alone."""
    encoder = Backbone(str(tiny_backbone)).encoder()
    generator = torch.Generator().manual_seed(0)
    segments = []
    for rows, tokens, padding, first in ((3, 7, 0, True), (16, 40, 9, False), (2, 100, 30, True), (1, 5, 0, False)):
        ids = torch.randint(5, 400, (rows, tokens), generator=generator)
        mask = torch.ones_like(ids)
        mask[-1, tokens - padding :] = 0
        segments.append(Segment("", torch.where(mask == 1, ids, 1), mask, first))
    with torch.no_grad():
        found = Packing(segments, device=torch.device("cpu")).hidden_states(encoder)
        for segment, states in zip(segments, found, strict=True):
            expected = encoder(segment.input_ids, attention_mask=segment.attention_mask).last_hidden_state
            expected = expected[:, :1] if segment.first_token_only else expected
            kept = segment.attention_mask[:, : expected.shape[1]].bool()
            torch.testing.assert_close(states[kept], expected[kept], **NEAR)


@pytest.mark.parametrize("spec", [AdapterSpec(reduction_factor=4), LoraSpec(r=4)])
def test_a_token_goes_through_its_own_module(spec: RegimeSpec, tiny_backbone: Path) -> None:
    """And through no other: its output is that of its module alone, and no other module gets a gradient."""
    shared = attach_several(spec, Backbone(str(tiny_backbone)), {"a": 1, "b": 2})
    ids = torch.arange(5, 35).view(2, 15)
    mine = {key: p for key, p in shared.encoder.named_parameters() if p.requires_grad}
    for parameter in mine.values():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(parameter.numel() + 1))
    shared.free(["a"])
    of_a = [p for p in mine.values() if p.requires_grad]
    shared.free(["a", "b"])
    assert 0 < len(of_a) == len(mine) / 2
    for parameter in of_a:
        parameter.data.mul_(0.5)

    packing = Packing([Segment(n, ids, torch.ones_like(ids)) for n in "ab"], device=torch.device("cpu"))
    shared.route(packing.parts)
    states = dict(zip("ab", packing.hidden_states(shared.encoder), strict=True))
    for name, hidden in states.items():
        shared.route(routed_alone(name))
        torch.testing.assert_close(hidden, shared.encoder(ids).last_hidden_state, **NEAR)
    assert (states["a"] - states["b"]).abs().max() > 0.1
    states["a"].square().sum().backward()
    touched = {id(p) for p in mine.values() if p.grad is not None and p.grad.abs().max() > 0}
    assert touched <= {id(p) for p in of_a}
    assert touched


def member(shared: SharedEncoder, backbone: Backbone, task: str, budget: int) -> Training:
    """A training of what is trainable in the shared encoder."""
    of = get_task(task)
    form = FORMATS[of.format]
    features = form.encode(EmbeddedSource().load(of, "en", "train", limit=12), of, backbone.tokenizer, 64)
    head = form.head(shared.encoder.config.hidden_size, of, 0.1)
    assert head is not None
    return Training(
        TaskModel(shared.encoder, head), [TrainingPart(form, features, task)],
        TrainingSettings(per_device_train_batch_size=6, num_train_epochs=1), seed=1,
        pad_token_id=backbone.tokenizer.pad_token_id, accelerator=make_accelerator("float32"),
        evaluate=lambda: {"dev": 0.0}, metric="dev", monitors=[], token_budget=budget,
    )  # fmt: skip


def test_a_pass_holds_no_more_than_one_training_would(tiny_backbone: Path) -> None:
    backbone = Backbone(str(tiny_backbone))
    shared = attach_several(AdapterSpec(reduction_factor=4), backbone, dict.fromkeys(TASKS, 1))
    passes: list[int] = []
    shared.encoder.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    counts = {}
    for budget in (400, 10**6):
        trainings = {}
        for task in TASKS:
            shared.free([task])
            trainings[task] = member(shared, backbone, task, budget)
        shared.free(TASKS)
        passes.clear()
        results = dict(Together(shared, trainings).run())
        done = [result for result in results.values() if isinstance(result, FitResult)]
        assert len(done) == len(TASKS)
        assert sum(passes) == sum(result.positions for result in done)
        assert max(passes) <= budget
        counts[budget] = len(passes)
    longest = max(len(result.losses) for result in done)
    assert counts[10**6] == len(TASKS) + longest - 1, "each alone at first, then a pass a step"
    assert counts[400] > counts[10**6]


# who trains with whom


def groups(recipe: Recipe, store: Store) -> set[tuple[str, ...]]:
    stages = make_plan(recipe).stages
    return {tuple(stage.label for stage in group) for group in joint_trainings(stages, store).values()}


def test_only_modules_alike_of_different_names_are_trained_side_by_side(make: Make, tmp_path: Path) -> None:
    regimes = {name: {"compositions": ["none", "multitask"]} for name in ("full", "adapter", "lora")}
    numbers = {"qqp": {"robust": {"method": "random"}}, "hellaswag": {"dtype": "bfloat16"}}
    tasks = ["squad", "mnli", "qqp", "hellaswag", "mlm@de", "mlm"]
    recipe = make(regimes=regimes, intermediate=tasks, tasks=numbers)
    assert groups(recipe, Store(tmp_path)) == {
        tuple(f"train {task}, {regime}" for task in ("squad", "mnli", "mlm@de")) for regime in ("adapter", "lora")
    }


@pytest.mark.parametrize(
    ("regimes", "named"),
    [
        ({"full": {}}, "regime full"),
        ({"full": {}, "adapter": {"compositions": ["multitask"]}}, "multitask"),
    ],
)
def test_what_cannot_be_side_by_side_is_refused(regimes: dict[str, Any], named: str, make: Make) -> None:
    make(regimes=regimes)
    with pytest.raises(UserError, match=f"together: .*{named}"):
        make(regimes=regimes, together=True)


def test_the_results_key_does_not_say_how_they_were_made(make: Make) -> None:
    keys = [[stage.key for stage in make_plan(make(together=together)).stages] for together in (False, True)]
    assert keys[0] == keys[1]


# as users meet it


def test_the_command_trains_them_side_by_side(tiny_backbone: Path, tmp_path: Path) -> None:
    arguments = [
        "train-intermediate", "--task", "mnli,hellaswag", "--together", "--backbone", tiny_backbone, "--data", "embedded",
        "--store", tmp_path, "--max-train-samples", 8, "--max-eval-samples", 4, "--max-seq-length", 32, "--max-steps", 2,
        "--dtype", "float32",
    ]  # fmt: skip
    code, _, err = xadapt(*arguments)
    assert code == 0, err
    manifests = [json.loads(path.read_text()) for path in tmp_path.rglob("manifest.json")]
    assert [len(manifest["provenance"]["together"]) for manifest in manifests] == [2, 2]
    assert "2 cached" in xadapt(*arguments)[2]
    for refused in (["--regime", "full"], ["--composition", "multitask"]):
        code, _, err = xadapt(*arguments, *refused)
        assert code == 2
        assert "together" in err


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_names_each_of_them(terminal: bool, make: Make, tmp_path: Path) -> None:
    shown = io.StringIO()
    reporter = ConsoleReporter(Console(file=shown, force_terminal=terminal, width=200))
    outcomes = run_plan(make_plan(make()), Store(tmp_path), reporter, execution=Execution(together=True))
    assert {outcome.status for outcome in outcomes} == {"succeeded"}
    for task in TASKS:
        row = rf"train {task}, adapter +\S*\d+/\d+ steps"  # in the table, which a short training leaves no line of elsewhere
        assert bool(re.search(row, plain_text(shown.getvalue()))) == terminal


def plain_text(shown: str) -> str:
    """What a terminal was sent, without colours and movements."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)


def xadapt(*arguments: object) -> tuple[int, str, str]:
    """Exit code and what a command writes, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["xadapt", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    return int(left.value.code or 0), out.getvalue(), err.getvalue()

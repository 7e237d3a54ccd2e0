"""Several tasks in one training: how often each is seen, in which order, and what is kept of it."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from silent_reporter import Silent

from xadapt.data.sources import EmbeddedSource
from xadapt.errors import UserError
from xadapt.formats import FORMATS, Features
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import MultiTaskModel, TaskModel
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FullSpec
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt.tasks import get_task
from xadapt.training.batching import optimizer_batches
from xadapt.training.device import make_accelerator
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart, mixed_batches, mixture_epoch, probabilities
from xadapt.training.settings import Mixing, TrainingSettings


def part(rows: int, name: str, *, auxiliary: bool = False) -> TrainingPart:
    """A part of which only the lengths matter."""
    lengths = [[0] * (3 + i % 7) for i in range(rows)]
    return TrainingPart(FORMATS["classification"], Features(lengths, [0] * rows, range(rows)), name, auxiliary)


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [
        (Mixing(), [0.1, 0.2, 0.7]),
        (Mixing(cap=200), [0.2, 0.4, 0.4]),
        (Mixing(temperature=2), [0.1**0.5, 0.2**0.5, 0.7**0.5]),
        (Mixing(temperature=1e9), [1, 1, 1]),
    ],
)
def test_tasks_are_drawn_by_their_capped_sizes(mixing: Mixing, expected: list[float]) -> None:
    parts = [part(100, "a"), part(200, "b"), part(700, "c")]
    found = probabilities(parts, mixing)
    assert found == pytest.approx([share / sum(expected) for share in expected], rel=1e-6)


def test_what_is_auxiliary_has_its_ratio_whatever_its_size() -> None:
    parts = [part(100, "a"), part(300, "b"), part(9, "mlm", auxiliary=True)]
    assert probabilities(parts, Mixing(mlm_ratio=0.2)) == pytest.approx([0.2, 0.6, 0.2])


def test_the_draws_follow_the_probabilities() -> None:
    parts = [part(100, "a"), part(300, "b"), part(40, "mlm", auxiliary=True)]
    mixing = Mixing(mlm_ratio=0.25)
    drawn = Counter(p.name for p, _ in islice(mixed_batches(parts, mixing, batch_size=4, seed=1), 4000))
    for name, share in zip(("a", "b", "mlm"), probabilities(parts, mixing), strict=True):
        assert drawn[name] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_each_task_is_seen_in_its_own_order_epoch_after_epoch() -> None:
    parts = [part(20, "a"), part(50, "b")]
    seen: dict[str, list[list[int]]] = {"a": [], "b": []}
    for drawn, rows in islice(mixed_batches(parts, Mixing(), batch_size=8, seed=3), 60):
        seen[drawn.name].append(rows)
    for of in parts:
        alone = [
            rows
            for epoch in range(30)
            for rows in optimizer_batches(of.features.lengths, batch_size=8, seed=3, epoch=epoch)
        ]
        assert seen[of.name] == alone[: len(seen[of.name])]
        assert len(seen[of.name]) > 10


def test_a_stream_that_starts_later_goes_on_as_the_whole_one() -> None:
    parts = [part(20, "a"), part(50, "b"), part(30, "c")]
    whole = [(p.name, rows) for p, rows in islice(mixed_batches(parts, Mixing(), batch_size=8, seed=3), 40)]
    for start in (0, 1, 17, 39):
        rest = mixed_batches(parts, Mixing(), batch_size=8, seed=3, start=start)
        assert [(p.name, rows) for p, rows in islice(rest, 40 - start)] == whole[start:]
    other = [(p.name, rows) for p, rows in islice(mixed_batches(parts, Mixing(), batch_size=8, seed=4), 40)]
    assert other != whole


@pytest.mark.parametrize(
    ("sizes", "mixing", "steps"),
    [
        ([100], Mixing(cap=8), 13),
        ([100, 60], Mixing(), 13 + 8),
        ([100, 60], Mixing(cap=64), 8 + 8),
        ([96], Mixing(mlm_ratio=0.25), 16),
    ],
)
def test_an_epoch_sees_the_main_tasks_examples(sizes: list[int], mixing: Mixing, steps: int) -> None:
    parts = [part(size, str(size)) for size in sizes]
    parts += [part(1000, "mlm", auxiliary=True)] if mixing.mlm_ratio else []
    assert mixture_epoch(parts, mixing, 8) == steps


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


def encoded(name: str, backbone: Backbone, rows: int = 24) -> TrainingPart:
    task = get_task(name)
    form = FORMATS[task.format]
    data = EmbeddedSource().load(task, "en", "train", limit=rows)
    return TrainingPart(form, form.encode(data, task, backbone.tokenizer, 64), name)


def test_a_step_of_a_mixture_is_that_of_the_tasks_own_training(backbone: Backbone) -> None:
    """The first step of each task, before anything has moved: loss and gradient norm are those of the task alone."""
    parts = [encoded(name, backbone) for name in ("mnli", "squad", "commonsense_qa")]
    settings = TrainingSettings(
        max_steps=24, per_device_train_batch_size=8, learning_rate=1e-9, warmup_ratio=0, max_grad_norm=0
    )

    def trained(chosen: list[TrainingPart], *, several: bool) -> list[dict[str, Any]]:
        torch.manual_seed(5)
        encoder = open_regime(AdapterSpec()).attach(backbone, name="one")
        encoder.eval().train = lambda mode=True: encoder  # type: ignore[method-assign]  # no dropout
        heads = {}
        for of in parts:
            torch.manual_seed(6)
            head = of.format.head(encoder.config.hidden_size, get_task(of.name), 0.0)
            assert head is not None
            heads[of.name] = head
        lines: list[dict[str, Any]] = []

        class Lines:
            def step(self, step: int, total: int, values: dict[str, Any]) -> None:
                lines.append(values)

            def selection(self, *_: object) -> None: ...

        model = MultiTaskModel(encoder, heads) if several else TaskModel(encoder, heads[chosen[0].name])
        Training(
            model, chosen, settings, seed=3, pad_token_id=1, accelerator=make_accelerator("float32"),
            evaluate=lambda: {"x": 0.0}, metric="x", monitors=[Lines()],
        ).run()  # fmt: skip
        return lines

    mixed = trained(parts, several=True)
    assert {line["task"] for line in mixed} == {"mnli", "squad", "commonsense_qa"}
    for of in parts:
        alone = trained([of], several=False)
        own = [line for line in mixed if line["task"] == of.name]
        assert "task" not in alone[0]
        for ours, theirs in zip(own, alone, strict=False):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


def run(tiny_backbone: Path, folder: Path, **recipe: Any) -> list[Outcome]:
    values = {
        "backbone": str(tiny_backbone), "data": "embedded", "max_train_samples": 40, "max_eval_samples": 12,
        "max_predict_samples": 8, "languages": ["en", "de"], "training": {
            "max_steps": 8, "per_device_train_batch_size": 8, "dtype": "float32", "learning_rate": 1e-3,
        },
    }  # fmt: skip
    plan = make_plan(make_recipe({**values, **recipe}, place="the test"))
    outcomes = run_plan(plan, Store(folder), Silent())
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return outcomes


def test_multitask_keeps_a_head_a_task_and_selects_on_their_mean(tiny_backbone: Path, tmp_path: Path) -> None:
    (outcome,) = run(
        tiny_backbone, tmp_path, intermediate=["squad", "mnli"], regimes={"full": {"compositions": ["multitask"]}}
    )
    assert outcome.result is not None
    heads = load_file(outcome.result.folder / "head.safetensors")
    assert {name.partition("/")[0] for name in heads} == {"mnli", "squad"}
    record = outcome.result.record
    assert record["tasks"] == {"mnli": 40, "squad": 40}
    lines = [json.loads(line) for line in (outcome.result.folder / "log.jsonl").read_text().splitlines()]
    assert {line["task"] for line in lines if "task" in line} == {"mnli", "squad"}
    dev = next(line["dev"] for line in lines if line.get("best"))
    assert dev["mean"] == pytest.approx((dev["mnli"] + dev["squad"]) / 2)
    assert record["dev_mean"] == pytest.approx(max(line["dev"]["mean"] for line in lines if "dev" in line))


@pytest.mark.parametrize("regime", ["full", "adapter"])
def test_masked_language_modelling_is_mixed_in_by_its_ratio(regime: str, tiny_backbone: Path, tmp_path: Path) -> None:
    (outcome,) = run(
        tiny_backbone, tmp_path, intermediate=["mnli"], regimes={regime: {}},
        mixture={"mlm_ratio": 0.4, "mlm_languages": ["de", "sw"]}, training={
            "max_steps": 40, "per_device_train_batch_size": 4, "dtype": "float32",
        },
    )  # fmt: skip
    assert outcome.result is not None
    lines = [json.loads(line) for line in (outcome.result.folder / "log.jsonl").read_text().splitlines()]
    drawn = Counter(line["task"] for line in lines if "task" in line)
    assert drawn["mlm@de+sw"] / 40 == pytest.approx(0.4, abs=0.25)
    dev = next(line["dev"] for line in lines if line.get("best"))
    assert dev["mean"] == dev["mnli"], "what is auxiliary does not select"


def test_what_a_mixture_is_enters_its_key(tiny_backbone: Path) -> None:
    def key(**changes: Any) -> str:
        values = {
            "backbone": str(tiny_backbone), "data": "embedded", "intermediate": ["mnli", "squad"],
            "regimes": {"full": {"compositions": ["multitask"]}}, "training": {"dtype": "float32"},
        }  # fmt: skip
        return make_plan(make_recipe(values | changes, place="the test")).stages[-1].key

    assert key(intermediate=["squad", "mnli"]) == key(), "the order in which tasks are listed is none"
    others = [
        key(intermediate=["mnli", "squad_v2"]), key(intermediate=["mnli", "squad", "qqp"]),
        key(mixture={"cap": 7}), key(mixture={"temperature": 2}), key(mixture={"mlm_ratio": 0.1}),
        key(mixture={"training": {"learning_rate": 1e-3}}), key(tasks={"squad": {"max_seq_length": 256}}),
    ]  # fmt: skip
    assert len({key(), *others}) == len(others) + 1


def test_one_task_alone_is_no_mixture(tiny_backbone: Path) -> None:
    values = {
        "backbone": str(tiny_backbone), "data": "embedded", "intermediate": ["mnli", "mnli"],
        "regimes": {"full": {"compositions": ["multitask"]}},
    }  # fmt: skip
    with pytest.raises(UserError, match="mnli, mnli"):
        make_recipe(values, place="the test")


def test_full_multitask_moves_every_parameter_and_adds_no_vocabulary(tiny_backbone: Path, tmp_path: Path) -> None:
    (outcome,) = run(
        tiny_backbone, tmp_path, intermediate=["squad", "mnli"], regimes={"full": {"compositions": ["multitask"]}}
    )
    assert outcome.result is not None
    before = dict(open_regime(FullSpec()).attach(Backbone(str(tiny_backbone)), name=None).named_parameters())
    after = dict(open_regime(FullSpec()).load(Backbone(str(tiny_backbone)), outcome.result.folder).named_parameters())
    assert before.keys() == after.keys()
    # positions that never occur, and the key biases, which a softmax forgets, do not move
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert all("key.bias" in name or "token_type" in name for name in still)

"""Whole studies on a tiny encoder: all succeed, nothing is done twice, a failure stays in its branch, runs agree."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from xadapt.analysis.records import Score
from xadapt.errors import UserError
from xadapt.languages import LANGUAGES
from xadapt.study.collect import study_of
from xadapt.study.collection import Collection
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_file import make_recipe
from xadapt.study.stage import Stage
from xadapt.study.store import Store, verify
from xadapt.tasks import TASKS
from xadapt.training.result import Monitor

REGIMES: dict[str, Any] = {
    "full": {"compositions": ["none", "continue"]},
    "adapter": {"compositions": ["none", "stack"], "reduction_factor": 4, "training": {"learning_rate": 1e-2}},
}


@dataclass
class Recorder:
    """A reporter that keeps what it is told."""

    steps: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    totals: dict[str, int] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    over: list[tuple[str, str]] = field(default_factory=list)

    def monitors(self, stage: Stage) -> list[Monitor]:
        return [_Steps(self, stage)]

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]:
        self.totals[stage.label] = total
        return lambda rows: self.rows.update({stage.label: rows})

    def started(self, stage: Stage, number: int, total: int) -> None:
        self.begun.append(stage.label)

    def waiting(self, stage: Stage) -> None:
        pytest.fail("nobody else is at it")

    def ended(self, outcome: Outcome, number: int, total: int) -> None:
        assert number == len(self.over) + 1 <= total
        self.over.append((outcome.status, outcome.stage.label))


@dataclass
class _Steps:
    recorder: Recorder
    stage: Stage

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self.recorder.steps[self.stage.label] += 1

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


Make = Callable[..., Recipe]


@pytest.fixture
def make(mirror: Path, tiny_backbone: Path) -> Make:
    """A recipe of a few seconds: mnli behind three targets, three steps a training."""

    def made(**changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "backbone": str(tiny_backbone), "data": str(mirror), "intermediate": ["mnli"],
            "targets": ["xnli", "udpos", "tatoeba"], "languages": ["en", "de"], "regimes": REGIMES,
            "training": {"max_steps": 3, "per_device_train_batch_size": 8, "dtype": "float32"}, "max_train_samples": 40,
        }  # fmt: skip
        return make_recipe(values | changes, place="the test")

    return made


def run(recipe: Recipe | Plan, store: Store) -> tuple[dict[str, Outcome], Recorder]:
    """Outcomes by label, and what was reported."""
    plan = recipe if isinstance(recipe, Plan) else make_plan(recipe)
    recorder = Recorder()
    outcomes = run_plan(plan, store, recorder)
    assert [outcome.stage for outcome in outcomes] == list(plan.stages)
    assert recorder.over == [(outcome.status, outcome.stage.label) for outcome in outcomes]
    ran = {outcome.stage.label: outcome.status for outcome in outcomes if outcome.status in ("succeeded", "failed")}
    assert [label for label in ran if label in recorder.begun] == recorder.begun
    assert {label for label, status in ran.items() if status == "succeeded"} <= set(recorder.begun)
    return {outcome.stage.label: outcome for outcome in outcomes}, recorder


def statuses(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {label: outcome.status for label, outcome in outcomes.items()}


def scores_of(recipe: Recipe, store: Store) -> list[Score]:
    return Collection(store, {"s": study_of(recipe, make_plan(recipe))}).scores()


def touched(store: Store) -> dict[Path, int]:
    """When each file of the results was last written; locks are no results."""
    files = (path for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def parameters(store: Store) -> dict[str, str]:
    """The sha256 of every file of parameters, by its place in the store."""
    files = sorted(store.root.rglob("*.safetensors"))
    return {str(f.relative_to(store.root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_a_study_succeeds_is_found_again_and_repeats_itself_elsewhere(make: Make, tmp_path: Path) -> None:
    recipe, store = make(), Store(tmp_path / "first")
    outcomes, recorder = run(recipe, store)
    assert set(statuses(outcomes).values()) == {"succeeded"}
    for label, outcome in outcomes.items():
        assert outcome.result
        verify(outcome.result)
        assert outcome.stage.kind == "evaluate" or recorder.steps[label] == 3
    assert recorder.rows == recorder.totals

    before = touched(store)
    again, recorder = run(recipe, store)
    assert set(statuses(again).values()) == {"cached"}
    assert (recorder.steps, recorder.rows, touched(store)) == (Counter(), Counter(), before)

    scores = scores_of(recipe, store)
    check_scores(recipe, scores)
    elsewhere = Store(tmp_path / "second")
    run(recipe, elsewhere)
    assert scores_of(recipe, elsewhere) == scores
    assert parameters(elsewhere) == parameters(store) != {}


def check_scores(recipe: Recipe, scores: list[Score]) -> None:
    """Every cell in each of its languages and metrics, once, with everything needed to trace it."""
    cells = {(s.task, s.regime, s.composition, s.language, s.metric) for s in scores}
    assert cells == {
        (task, regime, composition, lang, metric)
        for task, langs in (("xnli", "en de"), ("udpos", "en de"), ("tatoeba", "de"))
        for regime, section in REGIMES.items()
        for composition in section["compositions"]
        for lang in langs.split()
        for metric in TASKS[task].metrics
    }
    assert len(scores) == len(cells)
    for score in scores:
        trained = score.composition != "none" or score.task != "tatoeba"
        assert 0 <= score.value <= 100
        assert score.n == (24 if (score.task, score.language) == ("udpos", "en") else 12)
        assert score.family == LANGUAGES[score.language].family
        assert score.main == (score.metric == TASKS[score.task].main_metric)
        assert score.intermediate == ("" if score.composition == "none" else "mnli")
        assert score.repeats == (score.task == "xnli" and score.intermediate == "mnli")
        assert score.train_samples == ((24 if score.task == "udpos" else 40) if trained else None)
        assert (score.seed, score.task_version, score.metric_version) == (0, 1, 1)
        assert "train first 40 rows" in score.setting
        named = [f"{score.task}.v1", f"{score.metric}.v1", f"regime:{score.regime}", "dtype:float32", "seed:0"]
        assert all(part in score.signature.split("|") for part in named)
        assert ("lr:0.01" in score.signature.split("|")) == (trained and score.regime == "adapter")
        assert score.signature.endswith("layer:2|dtype:float32|seed:0|xadapt:0.1.0") == (score.task == "tatoeba")
    check_repeats(scores)


def check_repeats(scores: list[Score]) -> None:
    none = {(s.regime, s.language): s for s in scores if s.task == "xnli" and s.composition == "none"}
    for score in (score for score in scores if score.repeats):
        plain = none[score.regime, score.language]
        assert (score.value, score.stage) == (plain.value, plain.stage)


def damage_label(path: Path) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[3]["pos_tags"][0] = "NOUM"
    pq.write_table(type(table).from_pylist(rows), path)


@pytest.mark.parametrize(
    ("damage", "planned"), [(damage_label, "before"), (damage_label, "after"), (Path.unlink, "before")]
)
def test_a_failure_stays_in_its_branch_and_mending_runs_only_what_is_missing(
    make: Make, mirror: Path, tmp_path: Path, damage: Callable[[Path], None], planned: str
) -> None:
    """The German test file breaks, or goes, once the study is planned; or it was broken from the start."""
    recipe, store = make(targets=["udpos", "tatoeba"], regimes={"adapter": REGIMES["adapter"]}), Store(tmp_path / "s")
    path = mirror / "udpos" / "udpos.German" / "test.parquet"
    whole, plan = path.read_bytes(), make_plan(recipe)
    damage(path)
    plan = plan if planned == "before" else make_plan(recipe)
    outcomes, _ = run(plan, store)
    expected = {label: "failed" if label.startswith("evaluate udpos") else "succeeded" for label in outcomes}
    assert statuses(outcomes) == expected
    for outcome in outcomes.values():
        assert isinstance(outcome.error, UserError) == (outcome.status == "failed")
        assert outcome.error is None or "udpos.German" in str(outcome.error)
    assert {score.task for score in Collection(store, {"s": study_of(recipe, plan)}).scores()} == {"tatoeba"}

    path.write_bytes(whole)
    mended, _ = run(recipe, store)
    assert statuses(mended) == {
        label: "succeeded" if status == "failed" else "cached" for label, status in expected.items()
    }
    assert {score.task for score in scores_of(recipe, store)} == {"udpos", "tatoeba"}


def test_what_needs_a_failed_stage_is_not_run(make: Make, mirror: Path, tmp_path: Path) -> None:
    recipe, store = make(regimes={"adapter": REGIMES["adapter"]}), Store(tmp_path / "s")
    plan = make_plan(recipe)
    path = mirror / "mnli" / "validation.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    outcomes, _ = run(plan, store)
    behind = "train udpos, adapter, stack mnli", "evaluate tatoeba on 1 languages: mnli, adapter"
    found = statuses(outcomes)
    assert found["train mnli, adapter"] == "failed"
    assert [found[label] for label in behind] == ["not run"] * 2
    assert (outcomes[behind[0]].error, outcomes[behind[0]].ok) == (None, False)
    assert Counter(found.values()) == {"succeeded": 5, "failed": 1, "not run": 3}
    path.write_bytes(whole)
    assert Counter(statuses(run(recipe, store)[0]).values()) == {"cached": 5, "succeeded": 4}


def test_an_error_nobody_foresaw_stays_in_its_branch_too(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, store = make(targets=["tatoeba"], regimes={"adapter": REGIMES["adapter"]}), Store(tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr("xadapt.study.train_stage.save_file", lambda *_: 1 / 0)
        outcomes, _ = run(recipe, store)
    assert [outcome.status for outcome in outcomes.values()] == ["succeeded", "failed", "not run"]
    failed = next(outcome for outcome in outcomes.values() if outcome.status == "failed")
    assert isinstance(failed.error, ZeroDivisionError)
    assert "ZeroDivisionError" in (store.folder(failed.stage).with_suffix(".partial") / "error.txt").read_text()


def drop_a_row(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "place", "kept"),
    [
        (drop_a_row, "data/tatoeba/tatoeba.deu/validation.parquet", ["train"]),
        (flip_a_byte, "backbone/model.safetensors", []),
    ],
)
def test_what_changed_since_the_plan_is_not_kept_under_its_keys(
    make: Make, tmp_path: Path, damage: Callable[[Path], None], place: str, kept: list[str]
) -> None:
    whole = make()
    folders = {name: shutil.copytree(getattr(whole, name), tmp_path / name) for name in ("data", "backbone")}
    recipe = make(targets=["tatoeba"], **{name: str(folder) for name, folder in folders.items()})
    plan = make_plan(recipe)
    damage(tmp_path / place)
    outcomes, _ = run(plan, Store(tmp_path / "s"))
    failed = [outcome for outcome in outcomes.values() if outcome.status == "failed"]
    assert all("changed since the study was planned" in str(outcome.error) for outcome in failed)
    assert {outcome.stage.kind for outcome in outcomes.values() if outcome.ok} == set(kept)


@pytest.mark.parametrize(
    ("name", "expected"), [("head.safetensors", ["cached", "failed"]), ("manifest.json", ["failed", "not run"])]
)
def test_damage_in_what_a_stage_needs_is_found(make: Make, tmp_path: Path, name: str, expected: list[str]) -> None:
    recipe, store = (
        make(targets=["udpos"], intermediate=[], regimes={"adapter": {"compositions": ["none"]}}),
        Store(tmp_path / "s"),
    )
    train = make_plan(recipe, evaluate=False)
    run(train, store)
    flip_a_byte(store.folder(train.stages[0]) / name)
    outcomes, _ = run(recipe, store)
    assert [outcome.status for outcome in outcomes.values()] == expected
    assert name in str(next(outcome.error for outcome in outcomes.values() if outcome.error))

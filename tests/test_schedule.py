"""The schedule of a plan on workers, with workers that do made-up stages in this process; no torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from silent_reporter import Silent

from xadapt import interruption
from xadapt.errors import UserError
from xadapt.interruption import resumable
from xadapt.study.execution import DEFAULT, Execution
from xadapt.study.outcome import Outcome
from xadapt.study.plan import Plan
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt.training.settings import SaveEvery
from xadapt.workers.assignment import Assignment, Unit, stages_from_json, stages_to_json
from xadapt.workers.local_pool import visible_gpus, worker_environment
from xadapt.workers.reports import Report, ended
from xadapt.workers.resources import GIB, resources_of
from xadapt.workers.schedule import RETRIES, Lost, run_on
from xadapt_cli.execution import execution_of
from xadapt_cli.pace import Pace


def stage(name: str, *needs: Stage) -> Stage:
    return Stage("train", {"name": name}, needs, {"backbone": "here"}, name)


FIRST, OTHER = stage("first"), stage("other")
BEHIND = stage("behind", FIRST)
BOTH = stage("both", BEHIND, OTHER)
PLAN = Plan((FIRST, BEHIND, OTHER, BOTH), ())


@dataclass
class Pool:
    """As many units at once as there is room for; the oldest ends at each wait, as `fate` says of its first stage."""

    store: Store
    size: int = 2
    fate: dict[str, list[str]] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    most: int = 0

    def room(self) -> bool:
        return len(self.units) < self.size

    def submit(self, unit: Unit) -> None:
        assert self.room()
        for one in unit:
            assert all(self.store.find(need) for need in one.needs), "before what it needs is there"
        self.units.append(unit)
        self.said.append("+".join(one.label for one in unit))
        self.most = max(self.most, len(self.units))

    def wait(self) -> Sequence[Report | Lost]:
        unit = self.units.pop(0)
        fates = self.fate.get(unit[0].label, [])
        fate = fates.pop(0) if fates else "succeeded"
        progress: list[Report | Lost] = [{"event": "started", "key": one.key} for one in unit]
        if fate == "lost":
            return [*progress, Lost(unit, "gone")]
        if fate == "signal":
            interruption.request("SIGTERM")
            fate = "interrupted"
        return [*progress, ended([self._outcome(one, fate) for one in unit])]

    def _outcome(self, one: Stage, fate: str) -> Outcome:
        if fate == "succeeded":
            return Outcome(one, "succeeded", self.store.run(one, lambda _: {}, waiting=lambda: None))
        error: Exception = UserError("mend it") if fate == "user" else ZeroDivisionError("by zero")
        return Outcome(one, "interrupted") if fate == "interrupted" else Outcome(one, "failed", error=error)

    def stop(self) -> None:
        self.said.append("stop")

    def close(self) -> None:
        self.said.append("close")


@dataclass
class Recorder(Silent):
    begun: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    def started(self, stage: Stage, number: int, total: int) -> None:
        self.begun.append(f"{number}/{total} {stage.label}")

    def lost(self, stage: Stage, why: str) -> None:
        self.losses.append(f"{stage.label} {why}")

    def ended(self, outcome: Outcome, number: int, total: int) -> None:
        self.over.append(f"{number}/{total} {outcome.status} {outcome.stage.label}")


def run(store: Store, **changes: Any) -> tuple[list[Outcome], Pool, Recorder]:
    groups = changes.pop("groups", None)
    pool, recorder = Pool(store, **changes), Recorder()
    outcomes = run_on(PLAN, store, recorder, pool, groups=groups)
    assert [outcome.stage for outcome in outcomes] == list(PLAN.stages)
    assert len(recorder.over) == len(outcomes)
    assert pool.said.pop() == "close"
    return outcomes, pool, recorder


def statuses(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def test_a_stage_starts_when_what_it_needs_is_there_and_is_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    outcomes, pool, recorder = run(store)
    assert statuses(outcomes) == ["succeeded"] * 4
    assert all(outcome.ok for outcome in outcomes)
    assert pool.said == ["first", "other", "behind", "both"]
    assert pool.most == 2
    assert recorder.begun == ["1/4 first", "3/4 other", "2/4 behind", "4/4 both"]
    outcomes, pool, _ = run(store)
    assert (statuses(outcomes), pool.said) == (["cached"] * 4, [])


def test_only_what_depends_on_a_failure_stops(tmp_path: Path) -> None:
    outcomes, pool, _ = run(Store(tmp_path), fate={"first": ["user"], "other": ["bug"]})
    assert statuses(outcomes) == ["failed", "not run", "failed", "not run"]
    assert isinstance(outcomes[0].error, UserError)
    assert str(outcomes[0].error) == "mend it"
    assert str(outcomes[2].error) == "ZeroDivisionError: by zero"
    assert not isinstance(outcomes[2].error, UserError)
    assert pool.said == ["first", "other"]
    outcomes, _, _ = run(Store(tmp_path), fate={"behind": ["bug"]})
    assert statuses(outcomes) == ["succeeded", "failed", "succeeded", "not run"]


def test_damage_in_the_store_fails_the_stage_that_has_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store)
    (store.folder(OTHER) / "manifest.json").write_text("{}")
    outcomes, _, _ = run(store)
    assert statuses(outcomes) == ["cached", "cached", "failed", "not run"]


@pytest.mark.parametrize("times", [1, RETRIES, RETRIES + 1])
def test_a_unit_whose_worker_is_lost_is_given_to_another_a_few_times(tmp_path: Path, times: int) -> None:
    outcomes, pool, recorder = run(Store(tmp_path), fate={"first": ["lost"] * times})
    survives = times <= RETRIES
    assert statuses(outcomes) == ["succeeded"] * 4 if survives else ["failed", "not run", "succeeded", "not run"]
    assert recorder.losses == ["first gone"] * min(times, RETRIES)
    assert pool.said.count("first") == min(times, RETRIES) + 1
    assert survives or "gone" in str(outcomes[0].error)


def test_a_worker_that_others_stopped_is_a_lost_one(tmp_path: Path) -> None:
    outcomes, _, recorder = run(Store(tmp_path), fate={"other": ["interrupted"]})
    assert statuses(outcomes) == ["succeeded"] * 4
    assert len(recorder.losses) == 1


def test_a_signal_is_passed_on_and_nothing_is_started_any_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run_on(Plan((FIRST,), ()), store, Silent(), Pool(store))
    with resumable():
        outcomes, pool, recorder = run(store, fate={"behind": ["signal"], "other": ["lost"]})
    # other is lost after the stop: what it had is there for the next start
    assert statuses(outcomes) == ["cached", "interrupted", "interrupted", "not run"]
    assert pool.said == ["behind", "other", "stop"]
    assert not recorder.losses
    assert statuses(run(store)[0]) == ["cached", "succeeded", "succeeded", "succeeded"]


def test_a_group_is_one_unit(tmp_path: Path) -> None:
    together = (FIRST, OTHER)
    groups = {one.key: together for one in together}
    outcomes, pool, _ = run(Store(tmp_path), groups=groups, fate={"first": ["lost"]})
    assert statuses(outcomes) == ["succeeded"] * 4
    assert pool.said == ["first+other", "first+other", "behind", "both"]


def test_an_assignment_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"lr": 2e-5, "list": [1, 2.5], "nothing": None, "é": {"true": True}}
    unit = (Stage("evaluate", spec, (BOTH,), {"data": "a folder"}, "evaluate é", 12), OTHER)
    execution = Execution(SaveEvery(steps=7), retry_in_fp32=True, deterministic=True, jobs=3)
    text = Assignment(unit, Store("runs"), execution).to_json()
    assert "\n" not in text
    read = Assignment.from_json(text)
    assert read.unit == unit
    assert [one.examples for one in read.unit] == [12, None]
    assert (read.execution, read.store.root) == (execution, Path("runs"))


def test_a_stage_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads(json.dumps(stages_to_json([BOTH])))
    assert list(stages_from_json(values)) == [FIRST.key, BEHIND.key, OTHER.key, BOTH.key]
    monkeypatch.setitem(__import__("xadapt.study.stage", fromlist=["_"]).STAGE_VERSIONS, "train", 99)
    with pytest.raises(UserError, match="another version"):
        stages_from_json(values)


@pytest.mark.parametrize(
    ("named", "found"), [("", []), ("-1", []), ("3", ["3"]), ("0, 2,GPU-8f", ["0", "2", "GPU-8f"])]
)
def test_gpus_are_those_that_are_visible_and_each_worker_has_one(
    named: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert visible_gpus() == found
    workers = [worker_environment(slot, 4) for slot in range(4)]
    assert {worker["OMP_NUM_THREADS"] for worker in workers} == {"1"}
    assert worker_environment(0, 2)["OMP_NUM_THREADS"] == "3"
    shares = [worker["CUDA_VISIBLE_DEVICES"] for worker in workers]
    assert shares == ([found[slot % 3] for slot in range(4)] if len(found) > 1 else [named] * 4)


def test_a_stage_asks_for_no_more_than_the_largest_machine_has(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 1000)
    where = {"backbone": str(tmp_path)}
    full, adapter = (Stage("train", {"regime": {"name": name}}, (), where, name) for name in ("full", "adapter"))
    average = Stage("average", {}, (), where, "average")
    large, small = {"CPU": 32.0, "GPU": 8.0, "memory": 64.0 * GIB}, {"CPU": 2.0, "memory": 1.0 * GIB}
    asked = resources_of((full,), [large, small])
    assert (asked.cpus, asked.gpus, asked.memory) == (4, 1, 2 * GIB + 5000)
    assert resources_of((adapter, full), [large]).memory == 2 * GIB + 5000
    assert resources_of((adapter,), [large]).memory == 2 * GIB + 1500
    assert resources_of((average,), [large]).gpus == 0
    assert [resources_of((full,), [small, small], at_once=jobs).cpus for jobs in (1, 2, 4)] == [2, 2, 1]
    asked = resources_of((full,), [small])
    assert (asked.cpus, asked.gpus, asked.memory) == (2, 0, int(0.9 * GIB))


def test_time_left_is_from_the_steps_of_this_start() -> None:
    pace = Pace()
    assert pace.left(500, 1000, now=10.0) is None
    assert pace.left(501, 1000, now=12.0) == pytest.approx(2.0 * 499)
    assert pace.left(1000, 1000, now=1010.0) == 0


GIVEN: dict[str, Any] = {
    "save_every": None,
    "retry_in_fp32": False,
    "deterministic": False,
    "jobs": None,
    "executor": "local",
    "address": None,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jobs": 0}, ["--jobs 0"]),
        ({"executor": "rey"}, ["'rey'", "--executor", "Did you mean 'ray'"]),
        ({"address": "auto"}, ["--address auto", "--executor ray"]),
        ({"save_every": "often"}, ["--save-every often"]),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any], words: list[str]) -> None:
    assert (
        execution_of(GIVEN)
        == execution_of({"save_every": "10m", "retry_in_fp32": False, "deterministic": False, "jobs": None})
        == DEFAULT
    )
    assert execution_of(GIVEN | {"deterministic": True}) == Execution(deterministic=True)
    with pytest.raises(UserError) as refused:
        execution_of(GIVEN | changes)
    assert [word for word in words if word not in str(refused.value)] == []

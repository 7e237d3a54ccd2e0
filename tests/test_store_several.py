"""Several stages made by one work: each a result of its own, whatever becomes of the others and whoever waits."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from xadapt.errors import UserError
from xadapt.study.stage import Stage
from xadapt.study.store import Made, Result, Store, verify

STAGES = [Stage("train", {"number": number}, (), {}, f"train number {number}") for number in range(3)]
Folders = Mapping[str, Path]
Work = Callable[[Folders], Iterator[tuple[str, Made]]]


def record(folders: Folders, key: str) -> tuple[str, Made]:
    (folders[key] / "weights.bin").write_bytes(key.encode())
    return key, {"steps": 3}


def whole(folders: Folders) -> Iterator[tuple[str, Made]]:
    yield from (record(folders, key) for key in folders)


def run(store: Store, work: Work = whole, stages: list[Stage] = STAGES) -> list[Result | Exception]:
    ended = store.run_several(stages, work, waiting=lambda stage: None)
    return [ended[stage.key] for stage in stages]


def never(folders: Folders) -> Iterator[tuple[str, Made]]:
    pytest.fail("all is there")


def results(store: Store) -> list[bool]:
    return [store.find(stage) is not None for stage in STAGES]


def test_each_is_a_result_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for stage, result in zip(STAGES, run(store), strict=True):
        assert isinstance(result, Result)
        verify(result)
        assert (result.manifest["key"], result.manifest["label"]) == (stage.key, stage.label)
        assert result.manifest["files"].keys() == {"weights.bin"}
        assert result.manifest["provenance"]["together"] == [each.label for each in STAGES]
        assert not result.cached
    assert all(isinstance(result, Result) and result.cached for result in run(store, never))
    assert {path.suffix for path in (tmp_path / "train").iterdir()} == {"", ".lock"}


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), list[set[str]]()

    def work(folders: Folders) -> Iterator[tuple[str, Made]]:
        asked.append(set(folders))
        return whole(folders)

    run(store, stages=STAGES[:1])
    found = run(store, work)
    assert asked == [{stage.key for stage in STAGES[1:]}]
    assert [isinstance(result, Result) and result.cached for result in found] == [True, False, False]


def test_one_that_fails_keeps_its_error_and_the_others_their_results(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def work(folders: Folders) -> Iterator[tuple[str, Made]]:
        first, second, third = folders
        yield first, ZeroDivisionError("made up")
        yield record(folders, second)
        yield third, UserError("made up")

    found = run(store, work)
    assert [type(each) for each in found] == [ZeroDivisionError, Result, UserError]
    assert results(store) == [False, True, False]
    (partial,) = tmp_path.rglob("*.partial")
    assert partial == store.folder(STAGES[0]).with_suffix(".partial")
    assert "ZeroDivisionError: made up" in (partial / "error.txt").read_text()


def test_an_error_of_the_work_is_that_of_all_that_had_not_ended(tmp_path: Path) -> None:
    store, error = Store(tmp_path), MemoryError("made up")

    def work(folders: Folders) -> Iterator[tuple[str, Made]]:
        yield record(folders, next(iter(folders)))
        raise error

    found = run(store, work)
    assert isinstance(found[0], Result)
    assert found[1:] == [error, error]
    assert results(store) == [True, False, False]
    assert all(isinstance(result, Result) for result in run(store))


def test_a_damaged_result_is_refused_and_the_others_are_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store, stages=STAGES[1:2])
    (store.folder(STAGES[1]) / "manifest.json").write_text("{}")
    assert [type(each) for each in run(store)] == [Result, UserError, Result]


def test_those_who_want_the_same_in_other_orders_wait_for_each_other_in_turn(tmp_path: Path) -> None:
    store, made = Store(tmp_path), list[str]()
    begun = threading.Barrier(4)

    def work(folders: Folders) -> Iterator[tuple[str, Made]]:
        for key in folders:
            made.append(key)
            yield record(folders, key)

    def want(stages: list[Stage], found: list[Any]) -> None:
        begun.wait()
        found += run(store, work, stages)

    orders = [STAGES, STAGES[::-1], STAGES[1:], [STAGES[2], STAGES[0]]]
    found: list[list[Any]] = [[] for _ in orders]
    threads = [threading.Thread(target=want, args=each, daemon=True) for each in zip(orders, found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=15)
    assert [len(each) for each in found] == [len(stages) for stages in orders]
    assert all(isinstance(result, Result) for each in found for result in each)
    assert sorted(made) == sorted(stage.key for stage in STAGES), "each is made once"

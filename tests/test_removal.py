"""`store rm`: what is named goes, after it was shown, and nothing that something else needs."""

from pathlib import Path

import pytest
from filelock import FileLock
from test_cli import _check_error, follow, ok, snapshot, xadapt
from test_inventory import ALONE, partial, store, study_of
from test_store import AFTER, STAGE
from test_study_versions import titles

from xadapt.study.inventory import list_entries, lock_of
from xadapt.study.stage import Stage
from xadapt.study.store import Store

__all__ = ["store"]  # the fixture


def there(store: Store) -> set[str]:
    return {entry.key for entry in list_entries(store.root) if entry.is_result}


def removed(store: Store, *names: str) -> str:
    """Shown first, then done by the command that was shown."""
    before = snapshot(store.root)
    shown = ok("store", "rm", *names, "--store", store.root)
    assert snapshot(store.root) == before
    return shown.out + follow(shown).out


def test_a_result_that_nothing_needs_goes(store: Store) -> None:
    out = removed(store, ALONE.key[:9])
    assert ALONE.key[:16] in out
    assert there(store) == {STAGE.key, AFTER.key}
    assert not lock_of(store.folder(ALONE)).exists()
    assert "note: study s@1" in removed(store, AFTER.key[:9]), "which a study names"


def test_what_another_result_needs_goes_only_with_it(store: Store) -> None:
    _check_error(xadapt("store", "rm", STAGE.key[:9], "--yes", "--store", store.root), [STAGE.key[:16], AFTER.key[:16]])
    assert there(store) == {STAGE.key, AFTER.key, ALONE.key}
    removed(store, STAGE.key[:9], AFTER.key[:9])
    assert there(store) == {ALONE.key}


def test_a_study_goes_and_its_results_stay_unless_asked_for(store: Store) -> None:
    assert "2 results" in removed(store, "s")
    assert (titles(store.root), there(store)) == ([], {STAGE.key, AFTER.key, ALONE.key})
    store.write_study("s", study_of(AFTER))
    removed(store, "s", "--results")
    assert (titles(store.root), there(store)) == ([], {ALONE.key})


def test_a_version_goes_alone_and_results_that_others_reach_stay(store: Store) -> None:
    store.write_study("s", study_of(AFTER, ALONE))
    store.write_study("t", study_of(STAGE))
    removed(store, "s@1", "--results")
    assert (titles(store.root), there(store)) == (["s@2", "t@1"], {STAGE.key, AFTER.key, ALONE.key})
    removed(store, "s", "--results")
    assert (titles(store.root), there(store)) == (["t@1"], {STAGE.key})


def test_a_study_that_cannot_be_read_can_go(store: Store) -> None:
    (store.root / "studies" / "bad.json").write_text("{")
    removed(store, "bad")
    assert titles(store.root) == ["s@1"]
    (store.root / "studies" / "bad.json").write_text("{")
    _check_error(xadapt("store", "rm", "s", "--results", "--store", store.root), ["bad.json"])


@pytest.mark.parametrize("names", [["S"], ["nothing"], ["s@2"], ["ffffffffff"], ["s", "nothing"]])
def test_what_is_not_there_is_refused(store: Store, names: list[str]) -> None:
    before = snapshot(store.root)
    _check_error(xadapt("store", "rm", *names, "--yes", "--store", store.root), [f"'{names[-1]}'"])
    assert snapshot(store.root) == before


def test_what_runs_may_need_a_training(store: Store) -> None:
    running = partial(store, Stage("evaluate", {"number": 8}, (STAGE,), {}, ""), "half.bin")
    with FileLock(lock_of(running)):
        _check_error(xadapt("store", "rm", ALONE.key[:9], "--yes", "--store", store.root), [str(running)])
        out = ok("store", "rm", AFTER.key[:9], "--yes", "--store", store.root).out
        assert "removed: 0 studies, 1 results" in out, "nothing needs an evaluation"


def test_a_result_somebody_holds_is_left(store: Store) -> None:
    with FileLock(lock_of(store.folder(AFTER))):
        out = ok("store", "rm", AFTER.key[:9], "--yes", "--store", store.root).out
    assert str(store.folder(AFTER)) in out
    assert "removed: 0 studies, 0 results" in out
    assert AFTER.key in there(store)


def test_every_single_commands_study_or_result_can_be_removed(
    tiny_backbone: Path, mirror: Path, tmp_path: Path
) -> None:
    where = ["--backbone", tiny_backbone, "--data", mirror, "--store", tmp_path / "store"]
    short = ["--max-train-samples", "8", "--max-eval-samples", "4", "--max-steps", "1"]
    ok("train-target", "--task", "udpos", "--regime", "adapter", *where, *short)
    ok("evaluate", "--task", "udpos", "--regime", "adapter", *where, *short, "--max-predict-samples", "4")
    store = Store(tmp_path / "store")
    (study,) = store.studies()
    removed(store, study, "--results")
    assert (titles(store.root), there(store)) == ([], set())
    done = ok("train-target", "--task", "udpos", "--regime", "adapter", *where, *short)
    removed(store, Path(done.last["artefact"]).name)
    assert there(store) == set()

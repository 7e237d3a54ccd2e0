"""What a store can do without: only that goes, and never what somebody works on or could go on from."""

import os
from pathlib import Path

import pytest
from filelock import FileLock
from test_inventory import ALONE, made_up, partial, store, study_of
from test_store import AFTER, STAGE, flip, run
from test_store_faults import in_a_process, line_of

from xadapt.errors import UserError
from xadapt.study.cleaning import Waste, drop, find_waste
from xadapt.study.inventory import lock_of
from xadapt.study.stage import Stage
from xadapt.study.store import Store

__all__ = ["store"]  # the fixture


def paths(found: list[Waste]) -> set[Path]:
    return {waste.path for waste in found}


def everything(root: Path) -> set[Path]:
    return set(root.rglob("*"))


def test_a_store_of_results_has_nothing_to_drop(store: Store) -> None:
    before = everything(store.root)
    found, kept = find_waste(store.root)
    assert (found, paths(kept)) == ([], {store.folder(ALONE)})
    assert everything(store.root) == before


def test_only_what_is_of_no_use_goes(store: Store) -> None:
    failed, empty = partial(store, made_up(1), "error.txt"), partial(store, made_up(2))
    progress = partial(store, made_up(3), "progress/weights.bin", "error.txt")
    over = partial(store, STAGE, "progress/weights.bin")  # its result is there
    lock = lock_of(store.folder(made_up(4)))
    lock.touch()
    (store.folder(AFTER).parent / "notes.partial").mkdir()  # not ours
    (store.folder(made_up(5))).mkdir()
    (store.folder(made_up(5)) / "half.bin").write_bytes(b"123")
    before = everything(store.root)
    found, kept = find_waste(store.root)
    assert everything(store.root) == before, "finding changes nothing"
    assert paths(found) == {failed, empty, over, lock, store.folder(made_up(5))}
    assert paths(kept) == {progress, store.folder(ALONE)}
    assert {waste.path: waste.bytes for waste in found}[failed] == 5
    assert all(drop(waste) for waste in found)
    gone = before - everything(store.root)
    assert {path.name for path in gone if path.suffix != ".lock"} == {
        *(path.name for path in (failed, empty, over, store.folder(made_up(5)))), "error.txt", "progress",
        "weights.bin", "half.bin",
    }  # fmt: skip
    assert {path for path in gone if path.suffix == ".lock"} == {lock_of(failed), lock_of(empty), lock}
    assert find_waste(store.root)[0] == []
    found, kept = find_waste(store.root, resumable=True)
    assert (paths(found), paths(kept)) == ({progress}, {store.folder(ALONE)})


def test_what_a_process_works_in_is_never_touched(store: Store) -> None:
    """A stage at work in a process of its own; then it is killed, and its folder can go."""
    root = store.root.parent / "other"
    with in_a_process("work_until_killed", root) as process:
        assert line_of(process) == "working"
        folder = Store(root).partial(STAGE)
        waste = Waste(folder, "unfinished", 4, "")
        assert find_waste(root, resumable=True) == ([], [])
        assert not drop(waste)
        assert (folder / "half.bin").read_bytes() == b"half"
        with pytest.raises(UserError, match="is being made"):
            find_waste(root, unreachable=True)
        process.kill()
    assert paths(find_waste(root)[0]) == {folder}
    assert drop(waste)
    assert list(folder.parent.iterdir()) == []


def test_what_changed_since_it_was_found_is_left(store: Store) -> None:
    folder, later = partial(store, made_up(1), "half.bin"), partial(store, made_up(2), "half.bin")
    found, _ = find_waste(store.root)
    (folder / "progress").mkdir()
    run(store, made_up(2))
    assert [drop(waste) for waste in found] == [False, False]
    assert folder.is_dir()
    assert store.verified(made_up(2))
    assert not later.exists()


def test_the_lock_is_held_while_a_folder_goes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = partial(store, made_up(1), "half.bin")
    (waste,) = find_waste(store.root)[0]
    real, held = os.unlink, []

    def unlink(*args: object, **options: object) -> None:
        with pytest.raises(TimeoutError), FileLock(lock_of(folder)).acquire(timeout=0):
            pass
        held.append(args)
        real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", unlink)
    assert drop(waste)
    assert held


def test_unreachable_results_go_only_when_asked_and_with_their_manifest_first(store: Store) -> None:
    found, _ = find_waste(store.root, unreachable=True)
    assert paths(found) == {store.folder(ALONE)}
    assert drop(found[0])
    assert store.find(ALONE) is None
    assert not lock_of(store.folder(ALONE)).exists()
    assert store.verified(AFTER)
    assert store.verified(STAGE)


def test_stages_of_an_unfinished_study_are_reachable(store: Store) -> None:
    """What an evaluation that is not there needs is known only if the study names it."""
    later = Stage("evaluate", {"number": 4}, (ALONE,), {}, "later")
    store.write_study("t", study_of(later))
    with pytest.raises(UserError, match="store rm t@1"):
        find_waste(store.root, unreachable=True)
    (store.root / "studies" / "t.json").unlink()
    store.write_study("t", study_of(later, stages=[ALONE.key, later.key]))
    assert find_waste(store.root, unreachable=True) == ([], [])


@pytest.mark.parametrize("damaged", [STAGE, ALONE])
def test_nothing_counts_as_unreachable_while_needs_are_unknown(store: Store, damaged: Stage) -> None:
    path = store.folder(damaged) / "manifest.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(UserError, match=str(path)):
        find_waste(store.root, unreachable=True)
    assert damaged.key[:16] not in {p.name for p in paths(find_waste(store.root)[0])}


def test_a_need_that_was_tampered_with_is_noticed(store: Store) -> None:
    path = store.folder(AFTER) / "manifest.json"
    path.write_text(path.read_text().replace(STAGE.key, "0" * 64))
    with pytest.raises(UserError, match=str(path)):
        find_waste(store.root, unreachable=True)


def test_a_damaged_study_hides_nothing(store: Store) -> None:
    flip(store.root / "studies" / "s.json")
    (store.root / "studies" / "s.json").write_text("{")
    with pytest.raises(UserError, match=r"s\.json"):
        find_waste(store.root, unreachable=True)

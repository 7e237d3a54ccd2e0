"""Results to another store and back: equal to the byte, whole or not at all, and nothing that leads out of a folder."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_inventory import ALONE, partial, store, study_of
from test_store import AFTER, STAGE, flip, run, shorten
from test_store_faults import at_call, disk_full

from xadapt.durable import sealed
from xadapt.errors import UserError
from xadapt.study.inventory import list_entries
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt.study.transfer import carry, choose

__all__ = ["store"]  # the fixture


def copy(source: Path, target: Path, **choice: Any) -> list[str]:
    return [how for _, how in carry(choose(source, **choice), target, waiting=lambda entry: None)]


def hashes(root: Path) -> dict[str, str]:
    """Every file but locks."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"
    }  # fmt: skip


def keys(root: Path) -> set[str]:
    return {entry.key for entry in list_entries(root)} if root.exists() else set()


def test_out_and_in_again_is_the_same_to_the_byte(store: Store, tmp_path: Path) -> None:
    os.utime(store.root / "studies" / "s.json", (1000, 1000))
    assert copy(store.root, tmp_path / "out") == ["copied"] * 3
    assert copy(tmp_path / "out", tmp_path / "in") == ["copied"] * 3
    assert hashes(tmp_path / "in") == hashes(tmp_path / "out") == hashes(store.root)
    assert (tmp_path / "in" / "studies" / "s.json").stat().st_mtime == 1000
    for stage in (STAGE, AFTER, ALONE):
        Store(tmp_path / "in").verified(stage)
    assert copy(store.root, tmp_path / "out") == ["there"] * 3


def test_a_study_or_a_key_brings_what_it_needs(store: Store, tmp_path: Path) -> None:
    partial(store, Stage("train", {"number": 9}, (), {}, ""), "error.txt")
    copy(store.root, tmp_path / "study", study="s")
    assert keys(tmp_path / "study") == {STAGE.key, AFTER.key}
    assert Store(tmp_path / "study").studies().keys() == {"s"}
    copy(store.root, tmp_path / "key", keys=[AFTER.key[:8]])
    assert keys(tmp_path / "key") == {STAGE.key, AFTER.key}
    assert Store(tmp_path / "key").studies() == {}
    copy(store.root, tmp_path / "one", keys=[STAGE.key])
    assert keys(tmp_path / "one") == {STAGE.key}


def test_what_is_not_there_is_counted(store: Store, tmp_path: Path) -> None:
    later = Stage("evaluate", {"number": 4}, (), {}, "later")
    store.write_study("t", study_of(AFTER, later))
    os.rename(store.folder(STAGE), tmp_path / "elsewhere")
    cargo = choose(store.root, study="t")
    assert (cargo.lacking, cargo.pending, [entry.key for entry in cargo.entries]) == ((STAGE.key[:16],), 1, [AFTER.key])


@pytest.mark.parametrize("bad", [{"keys": ["zz"]}, {"study": "S"}, {"keys": ["a"], "study": "s"}, {"rename": "../x"}])
def test_a_bad_choice_is_refused(store: Store, bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        choose(store.root, **bad)


def test_no_store_and_the_store_itself_are_refused(store: Store, tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError, match=str(folder)):
            choose(folder)
    with pytest.raises(UserError, match="itself"):
        copy(store.root, store.root)
    store.verified(STAGE)


def test_any_failing_system_call_leaves_whole_results_and_another_run_the_rest(store: Store, tmp_path: Path) -> None:
    failures = 0
    for number in range(1, 400, 3):
        target = tmp_path / f"out{number}"
        cargo = choose(store.root)
        with at_call(number, disk_full) as made:
            try:
                list(carry(cargo, target, waiting=lambda entry: None))
            except OSError:
                failures += 1
        for entry in list_entries(target) if target.exists() else []:
            assert entry.state == "whole"
        copy(store.root, target)
        assert hashes(target) == hashes(store.root)
        if len(made) < number:
            break
    assert len(made) < number
    assert failures > 10


def test_an_interrupted_copy_is_taken_up(store: Store, tmp_path: Path) -> None:
    going = carry(choose(store.root), tmp_path / "out", waiting=lambda entry: None)
    next(going)
    going.close()
    left = tmp_path / "out" / store.folder(ALONE).parent.name / f"{ALONE.key[:16]}.incoming"
    left.mkdir(exist_ok=True)
    (left / "half.bin").write_bytes(b"half")  # of a copy that was killed
    assert sorted(copy(store.root, tmp_path / "out")) == ["copied", "copied", "there"]
    assert hashes(tmp_path / "out") == hashes(store.root)


def test_what_is_there_is_kept_and_what_is_damaged_there_replaced(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.run(STAGE, lambda folder: {"own": True}, waiting=lambda: None)
    run(other, ALONE)
    flip(other.folder(ALONE) / "weights.safetensors")
    assert sorted(copy(store.root, other.root)) == ["copied", "replaced", "there"]
    assert other.verified(STAGE).record == {"own": True}
    other.verified(ALONE)


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
@pytest.mark.parametrize("name", ["weights.safetensors", "below/adapter.json", "log.jsonl", "manifest.json"])
def test_what_is_damaged_does_not_come(store: Store, tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(store.folder(STAGE) / name)
    target = tmp_path / "out"
    if name == "manifest.json" and damage is Path.unlink:  # then it is no result
        assert choose(store.root, study="s").lacking == (STAGE.key[:16],)
        return
    with pytest.raises(UserError, match="xadapt store verify"):
        copy(store.root, target, study="s")
    assert keys(target) == set()
    assert not list(target.rglob("*.incoming"))


def change_manifest(folder: Path, **change: Any) -> None:
    """A manifest with other content and the right seal, as a hostile folder can have it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(sealed({**manifest, **change})))


def facts(path: Path) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


def hostile(folder: Path, secret: Path, how: str) -> None:
    """Make a result name, or be, something outside its folder."""
    if how == "above":
        change_manifest(folder, files={f"../../../{secret.name}": facts(secret)})
    elif how == "absolute":
        change_manifest(folder, files={str(secret): facts(secret)})
    elif how == "link":
        (folder / "weights.safetensors").unlink()
        (folder / "weights.safetensors").symlink_to(secret)
        change_manifest(folder, files={"weights.safetensors": facts(secret)})
    elif how == "folder link":
        (folder / "inner").symlink_to(secret.parent)
        change_manifest(folder, files={f"inner/{secret.name}": facts(secret)})
    elif how == "manifest link":
        os.rename(folder / "manifest.json", secret)
        (folder / "manifest.json").symlink_to(secret)
    elif how == "result link":
        os.rename(folder, secret.parent / "moved")
        folder.symlink_to(secret.parent / "moved")
    elif how == "pipe":
        os.mkfifo(folder / "pipe")
        change_manifest(folder, files={"pipe": {"sha256": "0" * 64, "bytes": 3}})
    elif how == "endless":
        (folder / "log.jsonl").write_bytes(b"x" * 5_000_000)
    elif how == "file and folder":
        change_manifest(folder, files={name: facts(folder / "log.jsonl") for name in ("log.jsonl", "log.jsonl/x")})
    elif how == "spec":
        change_manifest(folder, spec={"number": "another"})
    elif how == "need":
        change_manifest(folder, needs=["../" * 20 + "etc"])


HOSTILE = ["above", "absolute", "link", "folder link", "manifest link", "result link", "pipe", "endless", "need", "spec", "file and folder"]  # fmt: skip


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_folder_is_refused_and_nothing_of_it_is_there(store: Store, tmp_path: Path, how: str) -> None:
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "secret.txt" if how != "above" else tmp_path / "secret.txt"
    secret.write_text("secret")
    hostile(store.folder(STAGE), secret, how)
    before = hashes(tmp_path)
    with pytest.raises(UserError):
        copy(store.root, tmp_path / "in", study="s")
    assert keys(tmp_path / "in") == set()
    assert hashes(tmp_path) == before, "nothing was written anywhere"


def test_a_study_with_other_content_needs_another_name(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.write_study("s", study_of(ALONE))
    with pytest.raises(UserError, match="--as NAME"):
        copy(store.root, other.root)
    assert keys(other.root) == set(), "nothing is copied before"
    copy(store.root, other.root, study="s", rename="theirs")
    assert other.studies() == {"s": study_of(ALONE), "theirs": study_of(AFTER)}
    store.write_study("t", study_of(AFTER))
    with pytest.raises(UserError, match="--study"):
        choose(store.root, rename="theirs")


@pytest.mark.parametrize("evaluation", ["../../../outside", "0" * 63, 3])
def test_a_hostile_study_is_refused(store: Store, tmp_path: Path, evaluation: object) -> None:
    study = study_of(AFTER)
    study["cells"][0]["evaluation"] = evaluation
    store.write_study("t", study)
    with pytest.raises(UserError, match=r"t\.json"):
        copy(store.root, tmp_path / "in")
    assert not (tmp_path / "in").exists()

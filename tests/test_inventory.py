"""What lies in a store: results and unfinished folders by their state, found by key, study and text, and whole or not."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from test_store import AFTER, CONTENT, STAGE, flip, run, shorten

from xadapt.durable import sealed
from xadapt.errors import UserError
from xadapt.study.integrity import check_result, check_studies
from xadapt.study.inventory import Entry, behind, chosen, list_entries, lock_of, pick
from xadapt.study.stage import Stage, key_of
from xadapt.study.store import Store
from xadapt.study.study_files import get_study, read_studies

ALONE = Stage("train", {"number": 3}, (), {}, "train\x1b[31m something else")
CELL = {
    "regime": "full", "composition": "none", "intermediate": "", "target": "xnli", "seed": 0, "repeats": False,
}  # fmt: skip


def study_of(*evaluations: Stage, **more: Any) -> dict[str, Any]:
    cells = [{**CELL, "evaluation": stage.key} for stage in evaluations]
    return {"recipe": {"name": "s"}, "setting": "here", "cells": cells, **more}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A training, its evaluation, which a study asked for, and a training that nobody did."""
    store = Store(tmp_path / "store")
    for stage in (STAGE, AFTER, ALONE):
        run(store, stage)
    store.write_study("s", study_of(AFTER))
    return store


def partial(store: Store, stage: Stage, *files: str) -> Path:
    """An unfinished folder as a stage leaves it, with its lock file."""
    folder = store.folder(stage).with_suffix(".partial")
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"12345")
    folder.mkdir(parents=True, exist_ok=True)
    lock_of(folder).touch()
    return folder


def made_up(number: int) -> Stage:
    return Stage("train", {"made up": number}, (), {}, f"made up {number}")


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.folder.name: entry for entry in entries}


def test_results_are_listed_with_what_their_manifests_say(store: Store) -> None:
    entries = {entry.key: entry for entry in list_entries(store.root)}
    assert entries.keys() == {STAGE.key, AFTER.key, ALONE.key}
    entry, result = entries[AFTER.key], store.find(AFTER)
    assert result
    assert (entry.kind, entry.label, entry.state, entry.needs) == ("evaluate", AFTER.label, "whole", (STAGE.key,))
    assert entry.bytes == sum(path.stat().st_size for path in result.folder.rglob("*") if path.is_file())
    assert (entry.started, entry.seconds) == tuple(result.manifest["provenance"][k] for k in ("started", "seconds"))


def test_unfinished_folders_are_told_apart(store: Store) -> None:
    folders = {
        "failed": partial(store, made_up(1), "error.txt", "half.bin"),
        "resumable": partial(store, made_up(2), "progress/step/weights.bin", "error.txt"),
        "interrupted": partial(store, made_up(3), "half.bin"),
        "running": partial(store, made_up(4), "half.bin"),
    }
    with FileLock(lock_of(folders["running"])):
        entries = by_name(list_entries(store.root))
    assert {state: entries[folder.name].state for state, folder in folders.items()} == {name: name for name in folders}
    assert entries[folders["failed"].name].bytes == 10
    (store.folder(ALONE) / "manifest.json").unlink()
    assert by_name(list_entries(store.root))[store.folder(ALONE).name].state == "empty"


def test_a_result_is_found_by_the_beginning_of_its_key(store: Store) -> None:
    entries = list_entries(store.root)
    for given in (STAGE.key, STAGE.key[:16], STAGE.key[:5].upper()):
        assert pick(entries, given, root=store.root).key == STAGE.key
    failed = partial(store, made_up(1), "error.txt")
    assert pick(list_entries(store.root), made_up(1).key, root=store.root).folder == failed
    with pytest.raises(UserError, match=f"Did you mean '{STAGE.key[:16]}'"):
        pick(entries, STAGE.key[:15] + "x", root=store.root)
    with pytest.raises(UserError):
        pick(entries, STAGE.key[:-1] + "x", root=store.root)
    digit = next(d for d in "0123456789abcdef" if d != STAGE.key[4])
    near = replace(pick(entries, STAGE.key, root=store.root), key=STAGE.key[:4] + digit + STAGE.key[5:])
    with pytest.raises(UserError, match=f"more digits.*{STAGE.key[:16]}"):
        pick([*entries, near], STAGE.key[:4], root=store.root)
    partial(store, STAGE, "half.bin")
    assert pick(list_entries(store.root), STAGE.key[:16], root=store.root).state == "whole", (
        "before what is left beside"
    )


def test_entries_are_chosen_by_kind_study_and_text(store: Store) -> None:
    entries = list_entries(store.root)
    assert {e.key for e in chosen(entries, kind="train")} == {STAGE.key, ALONE.key}
    study = get_study(read_studies(store.root), "s", root=store.root)
    assert {e.key for e in chosen(entries, study=study)} == {STAGE.key, AFTER.key}
    assert {e.key for e in chosen(entries, text="SOMETHING")} == {ALONE.key}
    assert {e.key for e in chosen(entries, text=STAGE.key[3:12], kind="train")} == {STAGE.key}
    with pytest.raises(UserError, match="'train'"):
        chosen(entries, kind="trian")
    with pytest.raises(UserError, match="Did you mean 's'"):
        get_study(read_studies(store.root), "S", root=store.root)


def test_what_is_needed_comes_first_also_in_a_circle(store: Store) -> None:
    entries = list_entries(store.root)
    assert list(behind([AFTER.key, "0" * 64], entries)) == [STAGE.key[:16], AFTER.key[:16]]
    circle = [Entry(Path(), "train", key * 64, "whole", "", 0, "", needs=(other * 64,)) for key, other in ("ab", "ba")]
    assert set(behind(["a" * 64], circle)) == {"a" * 16, "b" * 16}


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
@pytest.mark.parametrize("name", [*CONTENT, "manifest.json"])
def test_damage_to_any_file_is_reported_with_its_remedy(store: Store, name: str, damage: Any) -> None:
    damage(store.folder(STAGE) / name)
    entries = list_entries(store.root)
    assert STAGE.key[:16] in {entry.key[:16] for entry in entries}, "damaged ones are listed, too"
    (problem,) = (problem for entry in entries for problem in check_result(entry))
    assert problem.path == store.folder(STAGE) / name
    assert f"delete {store.folder(STAGE)}" in str(problem)


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}}, {"files": {"/etc/x": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"manifest.json": {"sha256": "0" * 64, "bytes": 1}}}, {"files": {"a": 3}}, {"files": []},
        {"files": {"a": {"sha256": "0" * 64, "bytes": "1"}}}, {"needs": ["../../x"]}, {"needs": {}}, {"key": "0" * 64},
        {"key": 3}, {"kind": "average"}, {"provenance": 3}, {"provenance": {"seconds": "long"}}, {"record": None},
        {"spec": {"number": 2}}, {"needs": ["0" * 64]}, {"version": 1}, {"version": "2"}, {"version": None}, {"spec": {"a": "\ud800"}},
        {"provenance": {"upgraded_from": 3}}, {"provenance": {"upgraded_from": ["x"]}},
    ],
)  # fmt: skip
def test_a_manifest_with_a_right_seal_and_wrong_content_is_damaged(store: Store, change: dict[str, Any]) -> None:
    path = store.folder(STAGE) / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(sealed({**manifest, **change})))
    (problem,) = (problem for entry in list_entries(store.root) for problem in check_result(entry))
    assert problem.path == path


def test_a_result_of_another_version_of_its_algorithm_is_whole(store: Store) -> None:
    """Nothing finds it any more, but it is what it says."""
    folder = store.folder(STAGE)
    manifest = json.loads((folder / "manifest.json").read_text())
    key = key_of("train", 1, manifest["spec"], [])
    (folder / "manifest.json").write_text(json.dumps(sealed({**manifest, "version": 1, "key": key})))
    folder.rename(folder.with_name(key[:16]))
    (entry,) = (entry for entry in list_entries(store.root) if entry.key == key)
    assert list(check_result(entry)) == []


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "{}", "", "\0", '{"key": "\\ud800"}'])
def test_a_manifest_or_study_that_is_none_is_damaged_and_no_more(store: Store, text: str) -> None:
    (store.folder(STAGE) / "manifest.json").write_text(text)
    (store.root / "studies" / "t.json").write_text(text)
    assert by_name(list_entries(store.root))[store.folder(STAGE).name].state == "damaged"
    (problem,) = check_studies(read_studies(store.root))
    assert problem.path.name == "t.json"


def test_a_study_whose_keys_lead_elsewhere_is_damaged(store: Store) -> None:
    study = study_of(AFTER)
    study["cells"][0]["evaluation"] = "../../etc/passwd"
    store.write_study("t", study)
    assert [problem.path.name for problem in check_studies(read_studies(store.root))] == ["t.json"]


def test_ten_thousand_results_are_listed_and_looked_up_at_once(tmp_path: Path) -> None:
    """Processor time, which other work on the machine does not lengthen as it does the clock; the goal is 2 s for each."""
    store = Store(tmp_path)
    first = run(store).manifest
    stages = [made_up(number) for number in range(10_000)]
    for stage in stages:
        store.folder(stage).mkdir()
        manifest = sealed({**first, "key": stage.key, "spec": stage.spec, "label": stage.label})
        (store.folder(stage) / "manifest.json").write_text(json.dumps(manifest))
    start = time.process_time()
    assert len(list_entries(tmp_path)) == 10_001
    listed = time.process_time()
    assert all(store.find(stage) for stage in stages)
    assert listed - start < 6
    assert time.process_time() - listed < 6

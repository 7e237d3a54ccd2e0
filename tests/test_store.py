"""The store: a result is made once, whole and checked, and damage to any byte of it is found."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xadapt.errors import UserError
from xadapt.study.stage import Stage
from xadapt.study.store import Result, Store

STAGE = Stage("train", {"number": 1}, (), {"backbone": "here"}, "train a made-up task")
AFTER = Stage("evaluate", {"number": 2}, (STAGE,), {"backbone": "here"}, "evaluate it")
CONTENT = {
    "weights.safetensors": b"\0\1\2" * 50,
    "below/adapter.json": b'{"a": 1}',
    "log.jsonl": b"",
    "\u00e9.txt": b"x",
}


def work(folder: Path) -> dict[str, Any]:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return {"steps": 3, "loss": 0.1, "text": "\u00e9"}


def run(store: Store, stage: Stage = STAGE, work: Callable[[Path], dict[str, Any]] = work) -> Result:
    return store.run(stage, work, waiting=lambda: None)


def assert_whole(store: Store, stage: Stage = STAGE) -> None:
    """The result is there, as it was written, and nothing else lies beside it."""
    result = store.verified(stage)
    found = {str(path.relative_to(result.folder)) for path in result.folder.rglob("*") if path.is_file()}
    assert found == {*CONTENT, "manifest.json"}
    assert all((result.folder / name).read_bytes() == content for name, content in CONTENT.items())
    names = {path.name for path in result.folder.parent.iterdir()}
    assert names == {result.folder.name, f"{result.folder.name}.lock"}


def test_a_result_is_made_once_and_then_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find(STAGE) is None
    made, again = run(store), run(store, work=lambda folder: pytest.fail("worked twice"))
    assert (made.cached, again.cached) == (False, True)
    assert made.manifest == again.manifest
    assert made.record == {"steps": 3, "loss": 0.1, "text": "\u00e9"}
    assert_whole(store)


def test_the_manifest_says_what_made_the_result(tmp_path: Path) -> None:
    run(Store(tmp_path))
    manifest = run(Store(tmp_path), AFTER).manifest
    assert manifest["key"] == AFTER.key
    assert (manifest["spec"], manifest["needs"]) == ({"number": 2}, [STAGE.key])
    assert manifest["files"].keys() == CONTENT.keys()
    assert {"xadapt", "packages", "python", "where", "started", "seconds"} <= manifest["provenance"].keys()


def test_failed_work_leaves_its_files_and_a_traceback_but_no_result(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half.bin").write_bytes(b"half")
        raise ZeroDivisionError("made up")

    with pytest.raises(ZeroDivisionError):
        run(store, work=fail)
    partial = store.folder(STAGE).with_suffix(".partial")
    assert store.find(STAGE) is None
    assert {path.name for path in partial.iterdir()} == {"half.bin", "error.txt"}
    assert "ZeroDivisionError: made up" in (partial / "error.txt").read_text()
    run(store)
    assert_whole(store)


def test_a_user_error_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def refuse(folder: Path) -> dict[str, Any]:
        (folder / "half.bin").write_bytes(b"half")
        raise UserError("made up")

    with pytest.raises(UserError):
        run(store, work=refuse)
    assert [path.suffix for path in (tmp_path / "train").iterdir()] == [".lock"]
    run(store)
    assert_whole(store)


def test_a_folder_without_manifest_is_no_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store)
    (store.folder(STAGE) / "manifest.json").unlink()
    (store.folder(STAGE) / "stale.bin").write_bytes(b"stale")
    assert store.find(STAGE) is None
    run(store)
    assert_whole(store)


def error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] if path.stat().st_size else b"longer")


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
@pytest.mark.parametrize("name", CONTENT)
def test_damage_to_any_file_is_found_and_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    store = Store(tmp_path)
    run(store)
    damage(store.folder(STAGE) / name)
    with pytest.raises(UserError) as refused:
        store.verified(STAGE)
    assert name in str(refused.value)
    assert f"delete {store.folder(STAGE)}" in str(refused.value)


def test_damage_to_any_byte_of_a_manifest_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store)
    path = store.folder(STAGE) / "manifest.json"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match="is damaged") as refused:
            store.find(STAGE)
        assert f"delete {store.folder(STAGE)} and run again" in str(refused.value)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="damaged"):
            store.find(STAGE)


@pytest.mark.parametrize("text", ["null", "[]", "{}", '"manifest"', "3"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    run(store)
    (store.folder(STAGE) / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        store.find(STAGE)


def test_a_result_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    shutil.copytree(run(store).folder, store.folder(AFTER))
    with pytest.raises(UserError, match="another stage"):
        store.find(AFTER)


def small_study(text: str) -> dict[str, Any]:
    return {"recipe": {"name": "s"}, "setting": text, "cells": []}


def test_studies_are_kept_whole_and_listed_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.studies() == {}
    for age, name in enumerate(("second", "a..b", "first.json")):
        store.write_study(name, small_study(f"{name} \u00e9"))
        os.utime(tmp_path / "studies" / f"{name}.json", (1000 - age, 1000 - age))
    assert list(store.studies()) == ["first.json", "a..b", "second"]
    assert store.studies()["a..b"] == small_study("a..b \u00e9")
    (tmp_path / "studies" / "second.json").write_text('{"name": ')
    with pytest.raises(UserError, match="damaged"):
        store.studies()

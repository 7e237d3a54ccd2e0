"""`xadapt store` as users meet it: what it prints, changes and refuses, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from test_cli import HEAVY, LOADED, _check_error, follow, ok, snapshot, xadapt
from test_inventory import ALONE, made_up, partial, store
from test_store import AFTER, STAGE, flip

from xadapt.study.inventory import lock_of
from xadapt.study.store import Store

__all__ = ["store"]  # the fixture


def line(out: str, word: str) -> str:
    (found,) = (line for line in out.splitlines() if word in line)
    return found


def test_ls_shows_every_result_and_what_is_unfinished(store: Store) -> None:
    failed = partial(store, made_up(1), "error.txt")
    out = ok("store", "ls", "--store", store.root).out
    assert STAGE.label in line(out, STAGE.key[:16])
    assert "failed" in line(out, failed.name[:16])
    assert "\x1b" not in out
    assert "\\x1b[31m" in line(out, ALONE.key[:16])
    records = json.loads(ok("store", "ls", "--json", "--study", "s", "--store", store.root).out)
    assert [(record["kind"], record["key"], record["state"]) for record in records] == [
        (stage.kind, stage.key, "whole") for stage in sorted((STAGE, AFTER), key=lambda stage: stage.kind)
    ]
    assert AFTER.key[:16] not in ok("store", "ls", "--kind", "train", "--store", store.root).out
    assert ok("store", "ls", "--text", "no such", "--store", store.root).out.startswith("0 results")


def test_show_tells_what_is_around_a_result(store: Store) -> None:
    facts = json.loads(ok("store", "show", STAGE.key[:6], "--json", "--store", store.root).out)
    assert (facts["spec"], facts["record"]["steps"], facts["needs"]) == ({"number": 1}, 3, [])
    assert facts["needed by"] == [f"evaluate/{AFTER.key[:16]} {AFTER.label}"]
    assert json.loads(ok("store", "show", AFTER.key, "--json", "--store", store.root).out)["studies"] == ["s@1"]
    out = ok("store", "show", AFTER.key[:6], "--store", store.root).out
    assert f"train/{STAGE.key[:16]}" in out
    failed = partial(store, made_up(1))
    (failed / "error.txt").write_text("ZeroDivisionError: \x1b[31mmade up")
    out = ok("store", "show", made_up(1).key[:9], "--store", store.root).out
    assert "ZeroDivisionError: \\x1b[31mmade up" in out


def test_verify_ends_with_one_if_anything_is_damaged(store: Store) -> None:
    before = snapshot(store.root)
    assert xadapt("store", "verify", "--store", store.root).code == 0
    assert snapshot(store.root) == before
    flip(store.folder(STAGE) / "weights.safetensors")
    flip(store.folder(ALONE) / "below" / "adapter.json")
    done = xadapt("store", "verify", "--store", store.root)
    assert done.code == 1
    assert str(store.folder(STAGE) / "weights.safetensors") in done.out
    assert len([line for line in done.out.splitlines() if line.startswith("damaged: ")]) == 2
    assert xadapt("store", "verify", AFTER.key[:8], "--store", store.root).code == 0
    assert xadapt("store", "verify", AFTER.key[:8], STAGE.key[:8], "--store", store.root).code == 1


def test_gc_shows_first_and_then_does_what_it_showed(store: Store) -> None:
    failed, running = partial(store, made_up(1), "error.txt"), partial(store, made_up(2), "half.bin")
    before = snapshot(store.root)
    with FileLock(lock_of(running)):
        shown = ok("store", "gc", "--store", store.root)
        assert snapshot(store.root) == before
        assert str(failed) in shown.out
        assert str(running) not in shown.out
        follow(shown)
    assert not failed.exists()
    assert (running / "half.bin").is_file()
    follow(ok("store", "gc", "--unreachable", "--store", store.root))
    assert not store.folder(ALONE).exists()
    assert not running.exists()
    assert store.verified(AFTER)


def test_export_and_import_lead_on(store: Store, tmp_path: Path) -> None:
    out = follow(ok("store", "export", tmp_path / "an export", "--store", store.root)).out
    assert out == "3 results verified: all whole\n"
    ok("store", "import", tmp_path / "an export", AFTER.key[:9], "--store", tmp_path / "in")
    assert Store(tmp_path / "in").verified(STAGE)
    again = ok("store", "import", tmp_path / "an export", "--study", "s", "--as", "t", "--store", tmp_path / "in")
    assert "2 there already" in again.out
    assert Store(tmp_path / "in").studies().keys() == {"t"}


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("ls --store {tmp}/nothing", ["{tmp}/nothing", "--store"]),
        ("ls --kind trian", ["'trian'", "--kind", "Did you mean 'train'"]),
        ("ls --study S", ["'S'", "Did you mean 's'"]),
        ("show zzz", ["'zzz'", "Valid"]),
        ("verify zzz", ["'zzz'"]),
        ("export {tmp}/out zzz", ["'zzz'"]),
        ("export {tmp}/out --study x\x1b", ["x\\x1b", "Valid: s"]),
        ("export {tmp}/out --as a/b", ["a/b", "--as"]),
        ("import {tmp}/nothing", ["{tmp}/nothing"]),
        ("export {tmp}/store", ["{tmp}/store", "itself"]),
    ],
)  # fmt: skip
def test_a_mistake_is_refused(command: str, named: list[str], store: Store, tmp_path: Path) -> None:
    arguments = [word.format(tmp=tmp_path) for word in command.split(" ")]
    before = snapshot(tmp_path)
    given = [] if "--store" in arguments else ["--store", store.root]
    _check_error(xadapt("store", *arguments, *given), [part.format(tmp=tmp_path) for part in named])
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["ls", "show {key}", "verify", "gc", "export {tmp}/out"])
def test_no_torch_is_loaded(command: str, store: Store, tmp_path: Path) -> None:
    arguments = ["store", *command.format(key=STAGE.key, tmp=tmp_path).split(), "--store", str(store.root)]
    script = LOADED.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"

"""Studies of one name: every version stays until it is removed, the latest is meant, and each can be named."""

import json
import os
from pathlib import Path

import pytest
from test_cleaning import paths
from test_cli import _check_error, ok, snapshot, xadapt
from test_inventory import ALONE, made_up, store, study_of
from test_store import AFTER, STAGE, run
from test_transfer import copy

from xadapt.errors import UserError
from xadapt.study.cleaning import find_waste
from xadapt.study.store import Store
from xadapt.study.study_files import get_study, read_studies

__all__ = ["store"]  # the fixture


def titles(root: Path) -> list[str]:
    return sorted(study.title for study in read_studies(root))


def test_a_study_that_says_something_else_takes_no_earlier_ones_place(store: Store) -> None:
    first, second = study_of(AFTER), study_of(AFTER, stages=[STAGE.key])
    store.write_study("s", first)
    assert titles(store.root) == ["s@1"], "it says the same"
    store.write_study("s", second)
    store.write_study("s", second)
    assert titles(store.root) == ["s@1", "s@2"]
    store.write_study("s", first)
    assert titles(store.root) == ["s@1", "s@2", "s@3"], "the latest is what was run last"
    assert store.studies() == {"s": first}
    found = [get_study(read_studies(store.root), name, root=store.root).content for name in ("s", "s@1", "s@2", "s@3")]
    assert found == [first, first, second, first]
    for wrong in ("s@0", "s@4", "s@", "s@01", "S@1"):
        with pytest.raises(UserError, match=f"'{wrong}'.*'s"):
            get_study(read_studies(store.root), wrong, root=store.root)


def test_more_than_nine_versions_are_counted_as_numbers(store: Store) -> None:
    for number in range(2, 13):
        store.write_study("s", study_of(AFTER, number=number))
    assert store.studies()["s"]["number"] == 12


def test_results_of_every_version_are_reachable(store: Store) -> None:
    later = made_up(7)
    run(store, later)
    store.write_study("s", study_of(later))
    assert paths(find_waste(store.root, unreachable=True)[0]) == {store.folder(ALONE)}
    os.unlink(store.root / "studies" / "s.json")
    assert paths(find_waste(store.root, unreachable=True)[0]) == {
        store.folder(stage) for stage in (ALONE, STAGE, AFTER)
    }


def test_versions_go_to_another_store_under_their_numbers(store: Store, tmp_path: Path) -> None:
    store.write_study("s", study_of(ALONE))
    os.utime(store.root / "studies" / "s@2.json", (2000, 2000))
    copy(store.root, tmp_path / "out")
    assert titles(tmp_path / "out") == ["s@1", "s@2"]
    assert Store(tmp_path / "out").studies() == {"s": study_of(ALONE)}
    assert (tmp_path / "out" / "studies" / "s@2.json").stat().st_mtime == 2000
    copy(store.root, tmp_path / "one", study="s@1", rename="t")
    assert titles(tmp_path / "one") == ["t@1"]
    assert not Store(tmp_path / "one").find(ALONE)
    copy(store.root, tmp_path / "both", study="s", rename="t")
    assert titles(tmp_path / "both") == ["t@1", "t@2"]
    assert Store(tmp_path / "both").find(ALONE)
    other = Store(tmp_path / "other")
    other.write_study("s", study_of(AFTER))
    other.write_study("s", study_of(STAGE))
    with pytest.raises(UserError, match="'s@2'"):
        copy(store.root, other.root)


def test_commands_name_a_version(store: Store) -> None:
    store.write_study("s", study_of(ALONE))
    listed = json.loads(ok("store", "studies", "--json", "--store", store.root).out)
    assert [(of["study"], of["evaluations"], of["finished"]) for of in listed] == [("s@1", 1, 1), ("s@2", 1, 1)]
    assert "s@2" in ok("store", "studies", "--store", store.root).out
    for name, stages in (("s@1", [STAGE, AFTER]), ("s", [ALONE]), ("s@2", [ALONE])):
        records = json.loads(ok("store", "ls", "--json", "--study", name, "--store", store.root).out)
        assert {record["key"] for record in records} == {stage.key for stage in stages}
        shown = json.loads(ok("store", "show", name, "--json", "--store", store.root).out)
        assert [cell["evaluation"] for cell in shown["cells"]] == [stages[-1].key]
    assert json.loads(ok("store", "show", AFTER.key, "--json", "--store", store.root).out)["studies"] == ["s@1"]
    for command in ("compare", "store show", "store ls --study", "export --xtreme out"):
        _check_error(xadapt(*command.split(), "s@3", "--store", store.root), ["'s@3'", "Did you mean 's"])


def test_running_a_recipe_with_other_numbers_loses_nothing(tiny_backbone: Path, mirror: Path, tmp_path: Path) -> None:
    """As it is used: the same name, another seed, and a cleaning that takes what no study reaches."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\ntargets: [tatoeba]\nregimes:\n  adapter: {compositions: [none]}\nmax_predict_samples: 4\n"
    )
    where = ["--backbone", tiny_backbone, "--data", mirror, "--store", tmp_path / "store"]
    for rows in (4, 5):
        ok("run", recipe, *where, "--set", f"max_predict_samples={rows}")
    assert titles(tmp_path / "store") == ["r@1", "r@2"]
    before = snapshot(tmp_path / "store")
    ok("store", "gc", "--unreachable", "--yes", "--store", tmp_path / "store")
    assert {name for name in before if ".lock" not in name} <= snapshot(tmp_path / "store").keys()
    first = json.loads(ok("compare", "r@1", "--json", "--store", tmp_path / "store").out)
    assert {score["n"] for score in first} == {4}
    (tmp_path / "store" / "studies" / "r.json").unlink()
    shown = ok("store", "gc", "--unreachable", "--store", tmp_path / "store").out
    assert "made for r" in shown, "whose result it was"

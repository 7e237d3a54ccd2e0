"""A store that an earlier version wrote (earlier_store/make.py says how), carried over: nothing is computed again."""

import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from test_cli import _check_error, follow, ok, snapshot, xadapt
from test_inventory import partial
from test_store import STAGE
from test_store_faults import at_call, die, in_a_process
from test_transfer import hashes

from xadapt.models.identity import backbone_identity, old_folder_identity
from xadapt.study.earlier_specs import CONVERSIONS, CannotCarry, Conversion, Made, commits_of
from xadapt.study.inventory import list_entries
from xadapt.study.stage import STAGE_VERSIONS, key_of
from xadapt.study.store import Store
from xadapt.study.upgrade import carry_out, plan_upgrade

EARLIER = Path(__file__).parent / "earlier_store"
RESULTS = 17
SECOND = "--set name=second --set seed=1 --set intermediate=[mnli] --set regimes.adapter.compositions=[none]"
TRAIN = (
    "train-intermediate --task qqp --regime lora --lora-r 2 --backbone tiny --data embedded --max-steps 1 --dtype float32 "
    "--per-device-train-batch-size 4 --max-train-samples 8 --max-eval-samples 4"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store, below a folder from where its backbone is `tiny`, as it was when it was made."""
    for name in ("store", "tiny"):
        shutil.copytree(EARLIER / name, tmp_path / name)
    shutil.copy(EARLIER / "small.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


def manifests(root: Path) -> dict[str, dict[str, Any]]:
    """Those of a store by the labels and seeds of its results, which nothing changes."""
    found = [json.loads(path.read_text()) for path in root.glob("*/*/manifest.json")]
    seeds = {of["key"]: of["spec"].get("seed") for of in found}
    named = {f"{of['label']} {seeds[(of['needs'] or [of['key']])[0]]} {of['spec'].get('seed')}": of for of in found}
    assert len(named) == len(found)
    return named


def contents(root: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(root).items() if ".lock" not in name}


def carried(root: Path, conversions: Sequence[Conversion]) -> None:
    for _ in carry_out(plan_upgrade(root, conversions), waiting=lambda entry: None):
        pass


def renamed(made: Made) -> Mapping[str, Any]:
    """A made-up change: an encoder's identity in other words."""
    return {**made.spec, "backbone": made.spec["backbone"].replace("sha256:", "made-up:")}


def test_what_an_earlier_version_wrote_is_refused_in_one_line_that_leads_on(root: Path) -> None:
    before = snapshot(root)
    for command in ("compare", "compare small", "store gc --unreachable", "store export out", "store show small",
                    "store show 64b970bb0abac50e", "export small --xtreme out"):  # fmt: skip
        _check_error(xadapt(*command.split(), "--store", root), ["xadapt store upgrade --store"])
    for command in ("run small.yaml", TRAIN):
        done = xadapt(*command.split(), "--store", root)
        assert (done.code, "xadapt store upgrade --store" in done.err, "Traceback" in done.err) == (2, True, False)
    assert xadapt("store", "verify", "--store", root).code == 1
    listed = json.loads(ok("store", "ls", "--json", "--store", root).out)
    assert [record["state"] for record in listed] == ["earlier"] * RESULTS
    assert {k: v for k, v in snapshot(root).items() if not k.endswith(".lock")} == before


def test_an_upgraded_store_is_listed_compared_and_found_by_the_same_commands(root: Path) -> None:
    then, before = manifests(root), snapshot(root)
    shown = ok("store", "upgrade", "--store", root)
    assert snapshot(root) == before
    follow(follow(shown))  # does it, and then verifies
    now = manifests(root)
    assert {label: of["record"] for label, of in now.items()} == {label: of["record"] for label, of in then.items()}
    assert {label: of["files"] for label, of in now.items()} == {label: of["files"] for label, of in then.items()}
    for recipe in ([], SECOND.split()):
        plan = json.loads(ok("plan", "small.yaml", "--json", *recipe, "--store", root).out)
        assert {stage["status"] for stage in plan["stages"]} == {"cached"}
    assert "1 cached" in ok(*TRAIN.split(), "--store", root).err
    scores = json.loads(ok("compare", "--json", "--store", root).out)
    values = {(score["stage"], score["language"]): score["value"] for score in scores}
    evaluated = {of["key"]: of["record"]["scores"] for of in now.values() if of["kind"] == "evaluate"}
    assert values == {(k, row["language"]): row["values"]["accuracy"] for k, rows in evaluated.items() for row in rows}
    assert len(evaluated) == 8
    assert ok("store", "upgrade", "--store", root).out == "nothing to upgrade\n"
    assert "cached" in ok("run", "small.yaml", "--store", root).err


def test_what_has_another_key_now_is_not_made_again_before_an_upgrade(root: Path) -> None:
    """A template of chats counts for the encoder now: the same command would not find what it had made."""
    (root.parent / "tiny" / "chat_template.jinja").write_text("{{ messages }}")
    before = snapshot(root)
    for command in (TRAIN, "run small.yaml --set name=other"):
        done = xadapt(*command.split(), "--store", root)
        assert (done.code, "xadapt store upgrade --store" in done.err) == (2, True)
    assert {k: v for k, v in snapshot(root).items() if not k.endswith(".lock")} == before
    ok("store", "upgrade", "--yes", "--store", root)
    assert "1 cached" in ok(*TRAIN.split(), "--store", root).err
    assert json.loads((root / "studies" / "small.json").read_text())["resolved"] == {"dtype": "float32", "commits": {}}


def test_an_encoder_that_is_not_there_is_told_of_before_anything_is_done(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "encoder tiny" not in ok("store", "upgrade", "--store", root).out
    monkeypatch.chdir(root)
    assert "encoder tiny" in ok("store", "upgrade", "--store", root).out


def test_a_store_that_was_not_upgraded_takes_nothing_from_another(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "upgraded")
    ok("store", "upgrade", "--yes", "--store", tmp_path / "upgraded")
    before = contents(root)
    _check_error(xadapt("store", "import", tmp_path / "upgraded", "--store", root), ["xadapt store upgrade --store"])
    assert contents(root) == before


def test_a_change_of_specs_gives_results_new_places_and_their_dependents_and_studies_follow(root: Path) -> None:
    then = manifests(root)
    carried(root, [*CONVERSIONS, renamed])
    now = manifests(root)
    assert now.keys() == then.keys()
    keys = {then[label]["key"]: of["key"] for label, of in now.items()}
    for label, of in now.items():
        assert of["spec"]["backbone"].startswith("made-up:")
        assert of["needs"] == [keys[need] for need in then[label]["needs"]]
        assert of["key"] == key_of(of["kind"], of["version"], of["spec"], of["needs"])
        assert of["provenance"]["upgraded_from"][-1] == then[label]["key"] != of["key"]
        assert (of["record"], of["files"]) == (then[label]["record"], then[label]["files"])
    ok("store", "verify", "--store", root)
    old = json.loads((EARLIER / "store" / "studies" / "small.json").read_text())
    study = Store(root).studies()["small"]
    assert [cell["evaluation"] for cell in study["cells"]] == [keys[cell["evaluation"]] for cell in old["cells"]]
    assert study["stages"] == [keys[key] for key in old["stages"]]
    assert plan_upgrade(root, [renamed]).moves == []


def no_averages(made: Made) -> Mapping[str, Any]:
    if made.kind == "average":
        raise CannotCarry("averages are made up")
    return made.spec


def test_what_cannot_be_carried_over_stays_and_all_else_is_done(root: Path) -> None:
    (damaged,) = (entry.folder for entry in list_entries(root) if entry.label == "train qqp, lora")
    (damaged / "manifest.json").write_text((damaged / "manifest.json").read_text().replace("qqp", "mnli"))
    planned = plan_upgrade(root, [*CONVERSIONS, no_averages])
    (average,) = (left for left in planned.left if left.why == "averages are made up")
    behind = [left for left in planned.left if "average" in left.label and left != average]
    assert len(behind) == 3, "what was made from the average, and what was made from that"
    assert {left.path for left in planned.left} == {damaged, average.path, *(left.path for left in behind)}
    before = {left.path: snapshot(left.path) for left in planned.left}
    carried(root, [*CONVERSIONS, no_averages])
    assert {left.path: snapshot(left.path) for left in planned.left} == before
    assert sum(entry.state == "whole" for entry in list_entries(root)) == RESULTS - 5
    scores = json.loads(ok("compare", "small", "--json", "--store", root).out)
    assert {score["composition"] for score in scores} == {"none", "stack"}


def test_what_was_made_again_meanwhile_is_kept(root: Path) -> None:
    shutil.copytree(root, root.with_name("again"))
    carried(root.with_name("again"), [renamed])
    (again,) = (e for e in list_entries(root.with_name("again")) if e.label == "train mnli, adapter" and e.needs == () and
                Store(root.with_name("again")).read(e.folder).manifest["spec"]["seed"] == 0)  # type: ignore[union-attr]  # fmt: skip
    shutil.copytree(again.folder, root / "train" / again.folder.name)
    planned = plan_upgrade(root, [renamed])
    assert [left.label for left in planned.left] == ["train mnli, adapter"]
    assert len(planned.moves) == RESULTS - 1
    carried(root, [renamed])
    ok("compare", "--store", root)


def test_another_version_of_an_algorithm_has_other_numbers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGE_VERSIONS, "train", STAGE_VERSIONS["train"] + 1)
    planned = plan_upgrade(root)
    assert {move.entry.label for move in planned.moves} == {"evaluate tatoeba on 2 languages: the backbone itself"}
    assert len(planned.left) == RESULTS - 1


def test_nothing_is_upgraded_while_a_stage_runs(root: Path) -> None:
    from filelock import FileLock

    from xadapt.study.inventory import lock_of

    folder = partial(Store(root), STAGE, "half.bin")
    with FileLock(lock_of(folder)):
        _check_error(xadapt("store", "upgrade", "--yes", "--store", root), [str(folder)])
    assert plan_upgrade(root).unfinished == 1


@pytest.fixture
def straight(root: Path) -> dict[str, str]:
    """Every file of a store that was upgraded at once."""
    shutil.copytree(root, root.with_name("straight"))
    carried(root.with_name("straight"), [renamed])
    return contents(root.with_name("straight"))


def die_at_many_calls(earlier: str, root: str) -> None:
    """For some n: a fork that dies at its n-th system call."""
    for number in range(1, 2000, 13):
        shutil.copytree(earlier, Path(root, str(number)))
        child = os.fork()
        if child == 0:
            with at_call(number, die):
                carried(Path(root, str(number)), [renamed])
            os._exit(0)
        ended = os.waitpid(child, 0)[1]
        if ended == 0:
            return
        assert ended == signal.SIGKILL
    raise AssertionError("it never ended well")


def test_an_upgrade_that_is_killed_anywhere_comes_to_the_same(root: Path, straight: dict[str, str]) -> None:
    (root.parent / "killed").mkdir()
    with in_a_process("die_at_many_calls", root, root.parent / "killed", module="test_upgrade") as process:
        process.communicate()
    assert process.returncode == 0
    killed = sorted(root.parent.joinpath("killed").iterdir())
    assert len(killed) > 20
    for store in killed:
        states = {entry.state for entry in list_entries(store) if entry.is_result}
        assert states <= {"whole", "earlier"}, "never damaged"
        carried(store, [renamed])
        assert contents(store) == straight


def converted(kind: str, spec: Mapping[str, Any], backbone: str = "embedded") -> Mapping[str, Any]:
    made = Made(kind, spec, {}, {"backbone": backbone, "data": "embedded"})
    for convert in CONVERSIONS:
        made = replace(made, spec=convert(made))
    return made.spec


def test_an_encoder_whose_opened_files_are_others_than_were_hashed_is_found_again(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    """A chat template counts now, and did not; another encoder in the folder's place keeps the name that it had."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_backbone, folder)
    plain = backbone_identity(str(folder))
    assert converted("train", {"backbone": plain}, str(folder)) == {"backbone": plain}
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    old, new = old_folder_identity(folder), backbone_identity(str(folder))
    assert old == plain != new
    assert converted("train", {"backbone": old}, str(folder)) == {"backbone": new}
    assert commits_of({"backbone": f"hub:a/b@{'c' * 40}", "languages": {"en": f"hub:d/e@{'f' * 40}/x/test"}}) == {
        "models/a/b@main": "c" * 40, "datasets/d/e@main": "f" * 40,
    }  # fmt: skip
    for where in (str(tmp_path / "gone"), str(tmp_path)):
        assert converted("train", {"backbone": old}, where) == {"backbone": old}
    assert converted("train", {"backbone": "sha256:0"}, str(folder)) == {"backbone": "sha256:0"}
    (folder / "model.safetensors").rename(folder / "weights.safetensors")  # which was opened, and did not count
    tensors = dict.fromkeys(load_file(folder / "weights.safetensors"), "weights.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": tensors}))
    with pytest.raises(CannotCarry, match=r"weights\.safetensors"):
        converted("train", {"backbone": old_folder_identity(folder)}, str(folder))


@pytest.mark.parametrize(
    ("labels", "metrics", "carried"),
    [
        (["O", "B-PER", "I-PER"], ["f1"], False), (["O", "B-PER", "I-PER"], ["accuracy", "f1"], False),
        (["O", "B-PER", "I-PER"], ["span_f1"], True), (["NOUN", "VERB"], ["f1"], True),
    ],
)  # fmt: skip
def test_a_users_f1_of_spans_is_made_again(labels: list[str], metrics: list[str], carried: bool) -> None:
    task = {
        "name": "my_ner", "role": "target", "format": "tagging", "description": "names", "languages": ["en"], "mirror": "ner",
        "columns": {"tokens": "tokens", "tags": "tags"}, "labels": labels, "splits": {}, "metrics": metrics, "own": True,
    }  # fmt: skip
    stored = {"task": "my_ner", "task_version": 1, "task_spec": task}
    specs = {
        "evaluate": {"backbone": "embedded", **stored, "languages": {"en": "sha256:0"}},
        "train": {"backbone": "embedded", "train": stored, "dev": stored},
        "mixture": {"backbone": "embedded", "tasks": [{"name": "my_ner", "train": stored, "dev": stored}]},
    }  # fmt: skip
    for kind, spec in specs.items():
        if carried:
            assert converted(kind, spec) == spec
        else:
            with pytest.raises(CannotCarry, match="my_ner"):
                converted(kind, spec)

"""Studies on the hub, which is a stand-in: what they keep, what moves it, and what earlier names become."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import StandIn, parquet
from huggingface_hub.utils import reset_sessions
from test_cli import Done, ok, xadapt
from test_fetch import only

from xadapt.data import listing, open_source
from xadapt.data.hub import HubSource
from xadapt.data.suite import suite_rows
from xadapt.models.identity import backbone_identity
from xadapt.study.earlier_specs import CONVERSIONS, CannotCarry, Made
from xadapt.study.hub_identities import content_identity
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.tasks import TASKS

GLUE, OWN, MODEL = "datasets/nyu-mll/glue", "datasets/someone/nli", "models/someone/tiny"
PINNED = str(TASKS["mnli"].hub.revision)
NEW, LATER, LATEST = "a" * 40, "b" * 40, "c" * 40
TRAIN, DEV = "mnli/train-00000-of-00001.parquet", "mnli/validation_matched-00000-of-00001.parquet"
ROWS = suite_rows("mnli", "en", "train", limit=40)


@pytest.fixture
def hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path
) -> Iterator[StandIn]:
    """mnli at its pinned commit, a copy of it that somebody has, and a small encoder."""
    stand_in = StandIn()
    data = {TRAIN: parquet(ROWS[:24]), DEV: parquet(ROWS[24:32]), "README.md": b"# NLI"}
    stand_in.repositories = {
        GLUE: {PINNED: data}, OWN: {NEW: data},
        MODEL: {NEW: {path.name: path.read_bytes() for path in tiny_backbone.iterdir()}},
    }  # fmt: skip
    stand_in.heads = {GLUE: PINNED, OWN: NEW, MODEL: NEW}
    stand_in.start()
    only(stand_in.url, monkeypatch, tmp_path_factory.mktemp("caches"))
    yield stand_in
    stand_in.stop()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A study of two steps on somebody's copy of mnli."""
    own = TASKS["mnli"].model_dump(mode="json") | {"name": "my_nli"}
    own["hub"] |= {"dataset": "someone/nli", "revision": None}
    (tmp_path / "my_nli.yaml").write_text(json.dumps(own))
    study = {
        "name": "kept", "task_files": ["my_nli.yaml"], "intermediate": ["my_nli", "mnli"], "backbone": "someone/tiny", "data": "hub",
        "regimes": {"adapter": {"compositions": ["none"]}},
        "training": {"max_steps": 2, "per_device_train_batch_size": 8, "dtype": "float32"},
    }  # fmt: skip
    (tmp_path / "kept.yaml").write_text(json.dumps(study))
    return tmp_path / "kept.yaml"


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process was told by the hub is forgotten, as in the next one."""
    monkeypatch.setattr("xadapt.data.hub_record._branches", {})
    monkeypatch.setattr("xadapt.data.hub_record._listings", {})
    monkeypatch.setattr(listing, "_answered", set())


def run(recipe: Path, *options: str) -> Done:
    return ok("run", recipe, "--store", recipe.parent / "runs", *options)


def test_a_study_reads_what_it_began_with_and_says_what_has_moved(
    hub: StandIn, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "2 succeeded" in run(recipe).err
    assert sorted(hub.listings()) == ["/api/datasets/nyu-mll/glue/revision/" + PINNED, f"/api/{OWN}", f"/api/{MODEL}"]
    kept = json.loads((recipe.parent / "runs" / "studies" / "kept.json").read_text())["resolved"]
    assert kept["commits"] == {"datasets/someone/nli@main": NEW, "models/someone/tiny@main": NEW}
    manifests = [json.loads(path.read_text()) for path in (recipe.parent / "runs").glob("train/*/manifest.json")]
    read_at = [json.loads(manifest["provenance"]["where"]["commits"]) for manifest in manifests]
    assert read_at == [kept["commits"] | {f"datasets/nyu-mll/glue@{PINNED}": PINNED}] * 2

    for repository in (OWN, MODEL):
        card = {"README.md": b"# A typo less"}
        hub.repositories[repository][LATER] = hub.repositories[repository][NEW] | card
        hub.heads[repository] = LATER
    new_process(monkeypatch)
    edited = run(recipe)
    assert "2 cached" in edited.err
    assert "note" not in edited.err, "nothing that is read has changed"

    hub.repositories[OWN][LATEST] = hub.repositories[OWN][NEW] | {TRAIN: parquet(ROWS[:20])}
    hub.heads[OWN] = LATEST
    new_process(monkeypatch)
    moved = run(recipe)
    assert "2 cached" in moved.err
    said = " ".join(moved.err.split())
    assert said.count("note: ") == 1
    named = ("note: datasets/someone/nli", NEW, LATEST, "1 of the 2", "--update-data")
    assert [part for part in named if part not in said] == []

    new_process(monkeypatch)
    planned = json.loads(ok("plan", recipe, "--store", recipe.parent / "runs", "--update-data", "--json").out)
    assert sorted(stage["status"] for stage in planned["stages"]) == ["cached", "to run"]
    updated = run(recipe, "--update-data")
    assert "1 succeeded, 1 cached" in updated.err
    new_process(monkeypatch)
    assert "2 cached" in run(recipe).err, "and that is what it reads from then on"


def test_a_branch_moves_for_other_commands_when_a_run_takes_the_newest_and_not_when_a_plan_looks(
    hub: StandIn, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        "train-intermediate",
        "--task",
        "mnli",
        "--backbone",
        "someone/tiny",
        "--data",
        "hub",
        "--max-steps",
        "2",
    ]
    command += ["--per-device-train-batch-size", "8", "--dtype", "float32", "--store", str(recipe.parent / "runs")]
    assert "1 succeeded" in ok(*command).err
    weights = hub.repositories[MODEL][NEW]["config.json"].replace(
        b'"layer_norm_eps": 1e-05', b'"layer_norm_eps": 1e-06'
    )
    hub.repositories[MODEL][LATER] = hub.repositories[MODEL][NEW] | {"config.json": weights}
    hub.heads[MODEL] = LATER
    new_process(monkeypatch)
    ok("plan", recipe, "--store", recipe.parent / "runs", "--update-data")
    new_process(monkeypatch)
    assert "1 cached" in ok(*command).err, "the encoder is what it was at its first use"
    new_process(monkeypatch)
    assert "1 succeeded" in ok(*command, "--update-data").err
    new_process(monkeypatch)
    assert "1 cached" in ok(*command).err, "and that is what it reads from then on"


def test_a_study_keeps_the_commits_of_what_one_run_does_not_read(
    hub: StandIn, recipe: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe)
    run(recipe, "--backbone", str(tiny_backbone))
    hub.repositories[MODEL][LATER] = hub.repositories[MODEL][NEW] | {"config.json": b"{}"}
    hub.heads[MODEL] = LATER
    new_process(monkeypatch)
    assert "2 cached" in run(recipe).err


def test_the_newest_is_refused_where_the_hub_does_not_answer(
    hub: StandIn, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe)
    new_process(monkeypatch)
    hub.stop()
    refused = xadapt("run", recipe, "--store", recipe.parent / "runs", "--update-data")
    assert refused.code == 2
    assert "someone/" in refused.err


def test_a_finished_study_asks_nobody(hub: StandIn, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(recipe)
    new_process(monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    reset_sessions()
    hub.asked.clear()
    assert "2 cached" in run(recipe).err
    assert hub.asked == []


def test_what_was_trained_on_the_hub_is_found_in_what_was_fetched(
    hub: StandIn, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe)
    root = tmp_path / "mirror"
    own = ("--task-file", tmp_path / "my_nli.yaml")
    ok("fetch", "--tasks", "mnli,my_nli", *own, "--backbone", "someone/tiny", "--to", root)
    hub.stop()
    again = run(recipe, "--data", str(root), "--backbone", str(root / "models" / "someone" / "tiny"))
    assert "2 cached" in again.err


def test_names_of_earlier_versions_become_names_by_content(hub: StandIn, tiny_backbone: Path) -> None:
    mnli, anli = TASKS["mnli"], TASKS["anli"]
    hub.repositories["datasets/facebook/anli"] = {
        LATER: {f"plain_text/dev_r{n}-00000-of-00001.parquet": parquet(ROWS[n : n + 3]) for n in (1, 2, 3)}
    }
    hub.repositories["datasets/stanfordnlp/snli"] = {LATER: {"plain_text/validation-00000-of-00001.parquet": b"snli"}}
    source = HubSource()
    old = f"hub:nyu-mll/glue@{PINNED}/mnli/train"
    assert content_identity(old, mnli) == source.identity(mnli, "en", "train")
    assert content_identity(f"{old} {old}", mnli) == " ".join([source.identity(mnli, "en", "train")] * 2)
    assert content_identity(f"hub:someone/tiny@{NEW}") == backbone_identity(str(tiny_backbone))

    parts = (f"facebook/anli@{LATER}/plain_text", f"stanfordnlp/snli@{LATER}/plain_text", f"nyu-mll/glue@{PINNED}/mnli")
    joined = content_identity("+".join(f"hub:{part}/validation" for part in parts), anli)
    at = ("facebook/anli", LATER), ("stanfordnlp/snli", LATER), ("nyu-mll/glue", PINNED)
    moved = [part.hub.model_copy(update={"revision": commit}) for part, (_, commit) in zip(anli.parts, at, strict=True)]
    more = tuple(part.model_copy(update={"hub": own}) for part, own in zip(anli.more, moved[1:], strict=True))
    assert joined == source.identity(anli.model_copy(update={"hub": moved[0], "more": more}), "en", "validation")

    for same in ("sha256:0", "embedded:0/mnli/en/train"):
        assert content_identity(same, mnli) == same
    assert content_identity(f"hub:nyu-mll/glue@{LATEST}/mnli/train", mnli) is None, "a commit that is nowhere"
    assert content_identity(f"hub:nyu-mll/other@{PINNED}/mnli/train", mnli) is None, "none of the task's"
    hub.stop()
    assert content_identity(old, mnli) == source.identity(mnli, "en", "train"), "told by our own record"


def test_specs_of_earlier_versions_become_those_that_a_plan_makes_now(hub: StandIn) -> None:
    """A training on one task and one on several, as they were kept by commits: by content they are found again."""
    values = {
        "name": "s", "backbone": "someone/tiny", "data": "hub", "intermediate": ["mnli"], "mixture": {"mlm_ratio": 0.0},
        "regimes": {"adapter": {"compositions": ["none"]}},
    }  # fmt: skip
    (stage,) = make_plan(make_recipe(values, place="the test")).stages
    commit = f"hub:nyu-mll/glue@{PINNED}/mnli"
    split = {"train": "train", "dev": "validation"}

    def earlier(spec: dict[str, Any]) -> dict[str, Any]:
        parts = {name: {**spec[name], "data": f"{commit}/{split[name]}"} for name in split}
        return {**spec, "backbone": f"hub:someone/tiny@{NEW}", **parts}

    def now(made: Made) -> dict[str, Any]:
        for convert in CONVERSIONS:
            made = replace(made, spec=convert(made))
        return dict(made.spec)

    spec = dict(stage.spec)
    assert now(Made("train", earlier(spec), {}, stage.where)) == spec
    several = {"backbone": spec["backbone"], "tasks": [{"train": spec["train"], "dev": spec["dev"], "name": "mnli"}]}
    before = {**several, "backbone": f"hub:someone/tiny@{NEW}", "tasks": [{**several["tasks"][0], **{name: earlier(spec)[name] for name in split}}]}  # fmt: skip
    assert now(Made("train", before, {}, stage.where)) == several
    evaluation = {
        "backbone": spec["backbone"],
        "task": "mnli",
        "task_version": 1,
        "languages": {"en": f"{commit}/train"},
    }
    assert now(Made("evaluate", evaluation, {}, {}))["languages"] == {"en": spec["train"]["data"]}
    gone = {**spec, "train": {**spec["train"], "data": f"hub:nyu-mll/glue@{LATEST}/mnli/train"}}
    with pytest.raises(CannotCarry, match=LATEST):
        now(Made("train", gone, {}, {}))


def test_forty_languages_are_one_listing(hub: StandIn) -> None:
    task, repository = TASKS["panx"], "datasets/google/xtreme"
    files = {
        f"PAN-X.{lang}/{split}-00000-of-00001.parquet": f"{lang} {split}".encode()
        for lang in task.languages for split in ("train", "validation", "test")
    }  # fmt: skip
    hub.repositories[repository] = {str(task.hub.revision): files}
    source = open_source("hub")
    found = {source.identity(task, lang, split) for lang in task.languages for split in ("train", "validation", "test")}
    assert len(found) == 3 * len(task.languages) == 120
    assert len(hub.asked) == 1

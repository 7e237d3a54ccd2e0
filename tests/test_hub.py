"""The real hub client against a stand-in server: rows, commits, the cache, and every way a hub can fail."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import Fault, Hub, StandIn, parquet

from xadapt.data.suite import suite_rows
from xadapt.models.identity import backbone_identity
from xadapt.tasks import TASKS

GLUE, MODEL = "datasets/nyu-mll/glue", "models/someone/tiny"
NEW, OLD, OTHER = "a" * 40, "b" * 40, "c" * 40
ROWS = suite_rows("mnli", "en", "train", limit=30)
FIRST, SECOND = (f"mnli/train-0000{shard}-of-00002.parquet" for shard in (0, 1))


@pytest.fixture
def hub() -> Iterator[StandIn]:
    """mnli in two shards at commit NEW, which `main` is, and in one shard with fewer rows at OLD."""
    stand_in = StandIn()
    validation = {"mnli/validation_matched-00000-of-00001.parquet": parquet(ROWS[:6])}
    stand_in.repositories[GLUE] = {
        NEW: {FIRST: parquet(ROWS[:20]), SECOND: parquet(ROWS[20:]), "README.md": b"# GLUE"} | validation,
        OLD: {"mnli/train-00000-of-00001.parquet": parquet(ROWS[:9])},
    }
    stand_in.heads[GLUE] = NEW
    stand_in.start()
    yield stand_in
    stand_in.stop()


LOAD = """
import json, sys
from xadapt.data import open_source
from xadapt.errors import UserError
from xadapt.tasks import TASKS

task, revision = TASKS["mnli"], sys.argv[1] or None
task = task.model_copy(update={"hub": task.hub.model_copy(update={"revision": revision})})
try:
    source = open_source("hub")
    rows = source.load(task, "en", sys.argv[2])
    answer = {
        "columns": dict(rows.columns), "identity": rows.identity, "again": source.identity(task, "en", sys.argv[2]),
        "count": source.count(task, "en", sys.argv[2]),
    }
except UserError as error:
    answer = {"error": str(error)}
print(json.dumps(answer))
"""

BACKBONE = """
import json
from xadapt.errors import UserError
from xadapt.models.identity import backbone_folder, backbone_identity

try:
    folder = backbone_folder("someone/tiny")
    answer = {"folder": str(folder), "identity": backbone_identity("someone/tiny")}
except UserError as error:
    answer = {"error": str(error)}
print(json.dumps(answer))
"""


def ask(script: str, hub: Hub, home: Path, *arguments: str) -> dict[str, Any]:
    """Run a script in a new process whose hub is the stand-in and whose cache is `home`."""
    inherited = {n: v for n, v in os.environ.items() if not n.upper().startswith("HF_") and "PROXY" not in n.upper()}
    env = inherited | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def load(hub: Hub, home: Path, *, revision: str = "", split: str = "train") -> dict[str, Any]:
    return ask(LOAD, hub, home, revision, split)


def premises(answer: dict[str, Any]) -> list[str]:
    assert "columns" in answer, answer.get("error")
    texts: list[str] = answer["columns"]["text_a"]
    return texts


ALL = [row["premise"] for row in ROWS]


def test_rows_are_the_hubs_and_the_identity_names_the_commit(hub: StandIn, tmp_path: Path) -> None:
    answer = load(hub, tmp_path)
    assert premises(answer) == ALL
    assert answer["columns"]["label"] == [TASKS["mnli"].labels.index(row["label"]) for row in ROWS]
    assert answer["identity"] == answer["again"]
    assert f"nyu-mll/glue@{NEW}/mnli/train" in answer["identity"]
    assert answer["count"] is None
    fetched = [path for path in hub.asked if "/resolve/" in path]
    assert {path.partition("/resolve/")[2] for path in fetched} == {f"{NEW}/{FIRST}", f"{NEW}/{SECOND}"}


def test_a_pinned_revision_is_what_is_asked_for(hub: StandIn, tmp_path: Path) -> None:
    answer = load(hub, tmp_path, revision=OLD)
    assert premises(answer) == ALL[:9]
    assert OLD in answer["identity"]
    assert all(OLD in path for path in hub.asked), "main was asked for"


def test_a_warm_cache_serves_without_a_hub(hub: StandIn, tmp_path: Path) -> None:
    online = load(hub, tmp_path)
    hub.stop()
    assert load(hub, tmp_path) == online
    other = load(hub, tmp_path, split="validation")
    assert "validation" in other["error"], "what was not fetched is not there"


def test_a_cold_cache_without_a_hub_says_every_way_on(hub: StandIn, tmp_path: Path) -> None:
    hub.stop()
    started = time.monotonic()
    message = load(hub, tmp_path)["error"]
    assert time.monotonic() - started < 10
    ways = ("--backbone embedded --data embedded", "--data DIR", "xadapt fetch --tasks mnli --backbone")
    assert [part for part in ("'nyu-mll/glue'", hub.url, *ways) if part not in message] == []
    pinned = load(hub, tmp_path, revision=OLD)["error"]
    assert "xadapt fetch --tasks mnli" in pinned


@pytest.mark.parametrize(
    "faults",
    [{"/nyu-mll/glue": 503}, {"/nyu-mll/glue": 404}, {SECOND: 404}, {SECOND: "truncated"}, {f"/revision/{NEW}": 404}],
    ids=["503", "404", "a shard's 404", "a shard cut off", "a revision's 404"],
)
def test_a_failing_hub_is_an_error_and_half_data_is_never_used(
    hub: StandIn, tmp_path: Path, faults: dict[str, Fault | list[Fault]]
) -> None:
    hub.faults = dict(faults)
    message = load(hub, tmp_path)["error"]
    assert "nyu-mll/glue" in message
    assert "--data embedded" in message
    if SECOND in faults:
        hub.stop()
        assert "error" in load(hub, tmp_path), "the first shard alone was taken for the split"


def test_a_download_that_broke_off_is_taken_up_again(hub: StandIn, tmp_path: Path) -> None:
    hub.faults = {SECOND: "truncated"}
    assert "error" in load(hub, tmp_path)
    hub.faults = {}
    assert premises(load(hub, tmp_path)) == ALL


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub: StandIn, tmp_path: Path) -> None:
    hub.faults, hub.once = {FIRST: 503}, True
    assert premises(load(hub, tmp_path)) == ALL
    assert not hub.faults, "the fault was met"


def test_without_a_hub_main_is_what_it_was_last(hub: StandIn, tmp_path: Path) -> None:
    assert premises(load(hub, tmp_path)) == ALL
    hub.heads[GLUE] = OLD
    assert premises(load(hub, tmp_path)) == ALL[:9], "main has moved"
    hub.repositories[GLUE][OTHER] = hub.repositories[GLUE][NEW]
    assert premises(load(hub, tmp_path, revision=OTHER)) == ALL, "a pinned revision is not main"
    hub.stop()
    assert OLD in load(hub, tmp_path)["identity"]


def test_a_hub_backbone(hub: StandIn, tmp_path: Path, tiny_backbone: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_backbone.iterdir()}
    hub.repositories[MODEL] = {NEW: files | {"pytorch_model.bin": b"pickled", "code.py": b"raise SystemExit"}}
    hub.heads[MODEL] = NEW
    answer = ask(BACKBONE, hub, tmp_path)
    assert answer.get("identity") == f"hub:someone/tiny@{NEW}", answer
    folder = Path(answer["folder"])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert not {"pytorch_model.bin", "code.py"} & {path.name for path in folder.iterdir()}, "never fetched"
    assert backbone_identity(str(folder)) == backbone_identity(str(tiny_backbone)), "the same content"
    hub.stop()
    assert ask(BACKBONE, hub, tmp_path) == answer, "a warm cache serves without a hub"


def test_an_unknown_hub_backbone_is_an_error(hub: StandIn, tmp_path: Path) -> None:
    message = ask(BACKBONE, hub, tmp_path)["error"]
    assert "'someone/tiny'" in message
    assert "--backbone embedded" in message

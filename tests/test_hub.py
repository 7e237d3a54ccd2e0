"""The real hub client against a stand-in server: rows, commits, the cache, and every way a hub can fail."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import Fault, Hub, StandIn, parquet

from xadapt.data import open_source
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
from xadapt.data.hub import HubSource
from xadapt.data.transfer import Patience
from xadapt.errors import UserError
from xadapt.tasks import TASKS

task, revision, options = TASKS["mnli"], sys.argv[1] or None, json.loads(sys.argv[3])
branch = options.pop("branch", "main")
task = task.model_copy(update={"hub": task.hub.model_copy(update={"revision": revision, "branch": branch})})
if not options.pop("connect", True):
    sys.addaudithook(lambda event, _: sys.exit(f"{event} was attempted") if event == "socket.connect" else None)
try:
    source = HubSource(**options, patience=Patience(pauses=()))
    before = source.count(task, "en", sys.argv[2])
    rows = source.load(task, "en", sys.argv[2])
    answer = {
        "columns": dict(rows.columns), "identity": rows.identity, "again": source.identity(task, "en", sys.argv[2]),
        "count": source.count(task, "en", sys.argv[2]), "before": before, "read_at": source.read_at,
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
    env = inherited | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "XADAPT_CACHE": str(home / "xadapt"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def load(hub: Hub, home: Path, *, revision: str = "", split: str = "train", **options: Any) -> dict[str, Any]:
    return ask(LOAD, hub, home, revision, split, json.dumps(options))


def premises(answer: dict[str, Any]) -> list[str]:
    assert "columns" in answer, answer.get("error")
    texts: list[str] = answer["columns"]["text_a"]
    return texts


ALL = [row["premise"] for row in ROWS]


def mirror_of(hub: Hub, commit: str, root: Path) -> Path:
    """A folder of the files that a commit holds, as `xadapt fetch` lays them out."""
    for name, content in hub.repositories[GLUE][commit].items():
        file = root / "nyu-mll" / "glue" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


def test_rows_are_the_hubs_and_are_named_by_their_content(hub: StandIn, tmp_path: Path) -> None:
    answer = load(hub, tmp_path)
    assert premises(answer) == ALL
    assert answer["columns"]["label"] == [TASKS["mnli"].labels.index(row["label"]) for row in ROWS]
    mirror = open_source(str(mirror_of(hub, NEW, tmp_path / "mirror")))
    assert answer["identity"] == answer["again"] == mirror.identity(TASKS["mnli"], "en", "train")
    assert answer["read_at"] == {"datasets/nyu-mll/glue@main": NEW}
    fetched = [path for path in hub.asked if "/resolve/" in path]
    assert {path.partition("/resolve/")[2] for path in fetched} == {f"{NEW}/{FIRST}", f"{NEW}/{SECOND}"}
    assert len(hub.listings()) == 1


def test_an_edit_of_the_card_leaves_the_data_what_it_is(hub: StandIn, tmp_path: Path) -> None:
    before = load(hub, tmp_path / "before")
    hub.repositories[GLUE][OTHER] = hub.repositories[GLUE][NEW] | {"README.md": b"# GLUE, with a typo less"}
    hub.heads[GLUE] = OTHER
    after = load(hub, tmp_path / "after")
    assert after["read_at"] == {"datasets/nyu-mll/glue@main": OTHER}
    assert after["identity"] == before["identity"]
    hub.repositories[GLUE][OLD][FIRST.replace("2.parquet", "1.parquet")] = parquet(ROWS[:8])
    hub.heads[GLUE] = OLD
    assert load(hub, tmp_path / "other")["identity"] != before["identity"]


def test_rows_are_counted_by_the_card_until_the_files_are_here(hub: StandIn, tmp_path: Path) -> None:
    splits = [{"name": "train", "num_examples": 392}, {"name": "validation_matched", "num_examples": 98}]
    hub.cards[GLUE] = {"dataset_info": [{"config_name": "mnli", "splits": splits}, {"config_name": "ax", "splits": []}]}
    answer = load(hub, tmp_path)
    assert (answer["before"], answer["count"]) == (392, 30)
    hub.cards[GLUE] = {"dataset_info": {"splits": "none that is known"}}
    assert load(hub, tmp_path / "other")["before"] is None


def test_a_pinned_revision_is_what_is_asked_for(hub: StandIn, tmp_path: Path) -> None:
    answer = load(hub, tmp_path, revision=OLD)
    assert premises(answer) == ALL[:9]
    assert answer["read_at"] == {f"datasets/nyu-mll/glue@{OLD}": OLD}
    assert all(OLD in path for path in hub.asked), "main was asked for"


def test_a_warm_cache_serves_without_a_hub(hub: StandIn, tmp_path: Path) -> None:
    known = {"commits": {"datasets/nyu-mll/glue@main": NEW}}
    online = load(hub, tmp_path)
    hub.stop()
    for options in (known, {}):
        offline = load(hub, tmp_path, **options, connect=False)
        assert offline == online | {"before": 30}, "no connection is attempted"
    other = load(hub, tmp_path, split="validation")
    assert "mnli/validation_matched-00000" in other["error"], "what was not fetched is not there"


def test_the_librarys_cache_serves_a_commit_that_nobody_listed_here(hub: StandIn, tmp_path: Path) -> None:
    online = load(hub, tmp_path, revision=NEW)
    shutil.rmtree(tmp_path / "xadapt")
    hub.stop()
    assert load(hub, tmp_path, revision=NEW) == online | {"before": 30}


def test_nothing_but_the_librarys_own_is_written_into_its_cache(hub: StandIn, tmp_path: Path) -> None:
    answer = load(hub, tmp_path)
    assert answer["read_at"]["datasets/nyu-mll/glue@main"] == NEW
    written = {path.relative_to(tmp_path / "hub").parts[1] for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    assert written <= {"blobs", "snapshots", "datasets--nyu-mll--glue"}, "and no refs"


@pytest.mark.parametrize("where", ["blobs", "snapshots"])
def test_a_damaged_file_of_the_librarys_cache_is_fetched_again_and_never_read(
    hub: StandIn, tmp_path: Path, where: str
) -> None:
    online = load(hub, tmp_path)
    file = next((tmp_path / "hub" / "datasets--nyu-mll--glue" / "snapshots" / NEW / "mnli").glob("train-00000*"))
    content = file.read_bytes()
    if where == "snapshots":
        file.unlink()
        file.write_bytes(content[: len(content) // 2])
    else:
        file.resolve().write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    faults, hub.faults = hub.faults, {"/nyu-mll/glue": 503, f"/revision/{NEW}": 503}
    assert "error" in load(hub, tmp_path)
    hub.faults = faults
    assert premises(load(hub, tmp_path)) == ALL
    assert load(hub, tmp_path)["identity"] == online["identity"]


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
    [
        {"/nyu-mll/glue": 503},
        {"/nyu-mll/glue": 404},
        {SECOND: 404},
        {SECOND: "truncated"},
        {SECOND: "wrong"},
        {SECOND: "long"},
    ],
    ids=["503", "404", "a shard's 404", "a shard cut off", "a shard damaged", "a shard too long"],
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


def test_a_branch_is_read_at_what_it_was_at_its_first_use(hub: StandIn, tmp_path: Path) -> None:
    assert premises(load(hub, tmp_path)) == ALL
    hub.heads[GLUE] = OLD
    assert premises(load(hub, tmp_path)) == ALL
    assert premises(load(hub, tmp_path, commits={"datasets/nyu-mll/glue@main": OLD})) == ALL[:9], "what is given counts"
    assert premises(load(hub, tmp_path, newest=True)) == ALL[:9], "main has moved"
    assert premises(load(hub, tmp_path)) == ALL, "for others it stays what it was"
    hub.repositories[GLUE][OTHER] = hub.repositories[GLUE][NEW]
    assert premises(load(hub, tmp_path, revision=OTHER)) == ALL, "a pinned revision is not main"
    hub.stop()
    assert load(hub, tmp_path)["read_at"] == {"datasets/nyu-mll/glue@main": NEW}


def test_without_a_hub_each_branch_is_what_that_branch_was(hub: StandIn, tmp_path: Path) -> None:
    hub.heads[f"{GLUE}@refs/convert/parquet"] = OLD
    assert premises(load(hub, tmp_path, branch="refs/convert/parquet")) == ALL[:9]
    assert not list(tmp_path.rglob("refs")), "the library's cache is not told of it"
    hub.stop()
    assert premises(load(hub, tmp_path, branch="refs/convert/parquet")) == ALL[:9]
    message = load(hub, tmp_path)["error"]
    assert "xadapt fetch --tasks mnli" in message, "main was never asked for"


def test_a_hub_backbone(hub: StandIn, tmp_path: Path, tiny_backbone: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_backbone.iterdir()}
    hub.repositories[MODEL] = {NEW: files | {"pytorch_model.bin": b"pickled", "code.py": b"raise SystemExit"}}
    hub.heads[MODEL] = NEW
    answer = ask(BACKBONE, hub, tmp_path)
    assert answer.get("identity") == backbone_identity(str(tiny_backbone)), "the same content"
    folder = Path(answer["folder"])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert not {"pytorch_model.bin", "code.py"} & {path.name for path in folder.iterdir()}, "never fetched"
    assert backbone_identity(str(folder)) == answer["identity"]
    assert len(hub.listings()) == 1
    hub.stop()
    assert ask(BACKBONE, hub, tmp_path) == answer, "a warm cache serves without a hub"


def test_an_unknown_hub_backbone_is_an_error(hub: StandIn, tmp_path: Path) -> None:
    message = ask(BACKBONE, hub, tmp_path)["error"]
    assert "'someone/tiny'" in message
    assert "--backbone embedded" in message

"""`xadapt fetch` against a stand-in hub: what comes is whole, what broke off goes on, and nothing else is ever read."""

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import SECRET, StandIn, parquet
from huggingface_hub.utils import reset_sessions
from test_cli import Done, follow, ok, snapshot, xadapt
from test_store_faults import at_call, disk_full

from xadapt.data import open_source
from xadapt.data.fetch import fetch_tasks, needs, verify_tasks
from xadapt.data.manifest import MANIFEST, read_manifest
from xadapt.data.snapshot import INCOMING
from xadapt.data.suite import suite_rows
from xadapt.data.transfer import Patience
from xadapt.errors import UserError
from xadapt.models.fetch import fetch_backbone
from xadapt.models.identity import backbone_identity
from xadapt.tasks import TASKS, Task
from xadapt.tasks.catalogue import BUILT_IN

# the library leaves answers with an error unread, whose connections are closed when they are forgotten
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
GLUE, XNLI, MODEL = "datasets/nyu-mll/glue", "datasets/facebook/xnli", "models/someone/tiny"
NEW, OLD = str(TASKS["mnli"].hub.revision), "b" * 40
XNLI_NOW = str(TASKS["xnli"].hub.revision)
ROWS = suite_rows("mnli", "en", "train", limit=30)
FIRST, SECOND = (f"mnli/train-0000{shard}-of-00002.parquet" for shard in (0, 1))
DEV = "mnli/validation_matched-00000-of-00001.parquet"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """mnli in two shards beside what is not wanted, xnli in three languages, of which Thai has no test split."""
    stand_in = StandIn()
    extra = {"README.md": b"# GLUE", "qqp/train-00000-of-00001.parquet": b"not wanted", "glue.py": b"raise SystemExit"}
    stand_in.repositories[GLUE] = {
        NEW: {FIRST: parquet(ROWS[:20]), SECOND: parquet(ROWS[20:]), DEV: parquet(ROWS[:6])} | extra
    }
    stand_in.repositories[XNLI] = {XNLI_NOW: {}}
    for lang, splits in (("en", ("validation", "test")), ("de", ("test",)), ("th", ("validation",))):
        for split in splits:
            rows = parquet(suite_rows("xnli", "en" if lang == "th" else lang, split, limit=12))
            stand_in.repositories[XNLI][XNLI_NOW][f"{lang}/{split}-00000-of-00001.parquet"] = rows
    stand_in.heads |= {GLUE: NEW, XNLI: XNLI_NOW}
    stand_in.start()
    only(stand_in.url, monkeypatch, tmp_path_factory.mktemp("caches"))
    yield stand_in
    gone(stand_in)
    gc.collect()


def only(url: str, monkeypatch: pytest.MonkeyPatch, caches: Path) -> None:
    """Make the stand-in the hub of this process, which has asked and kept nothing yet."""
    from huggingface_hub import constants

    for name in [name for name in os.environ if name.upper().startswith("HF_") or "PROXY" in name.upper()]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("XADAPT_CACHE", str(caches / "xadapt"))
    monkeypatch.setenv("HF_HUB_CACHE", str(caches / "hub"))  # of processes that are started
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(caches / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # with which the library pauses
    reset_sessions()


def gone(hub: StandIn) -> None:
    """Stop the stand-in, and forget the connections that are still open to it."""
    hub.stop()
    reset_sessions()


class Heard:
    """A watch that keeps what it is told."""

    def __init__(self) -> None:
        self.pauses: list[tuple[str, str]] = []
        self.fetched: dict[str, int] = {}
        self.seconds: list[float] = []

    def listed(self, repository: str, commit: str, files: int, size: int) -> None:
        self.fetched[repository] = files

    def coming(self, file: str, size: int) -> None:
        self.coming_now = file

    def paused(self, what: str, reason: str, seconds: float) -> None:
        self.pauses.append((what, reason))

    def waiting(self, repository: str) -> None:
        self.pauses.append((repository, "waiting"))


def fetch(root: Path, *tasks: str, languages: list[str] | None = None) -> Heard:
    """Fetch without sleeping."""
    heard = Heard()
    patience = Patience(sleep=heard.seconds.append)
    wanted = needs([TASKS[task] for task in tasks or ("mnli",)], languages)
    heard.fetched = {}
    fetch_tasks(root, wanted, watch=heard, patience=patience)
    return heard


def unpinned(name: str) -> Task:
    """A task of the catalogue's as a user may have it: of whatever its branch is."""
    task = TASKS[name]
    TASKS[name] = task.model_copy(update={"hub": task.hub.model_copy(update={"revision": None})})
    return TASKS[name]


def refused(act: Callable[[], object], *named: str) -> str:
    with pytest.raises(UserError) as caught:
        act()
    assert [part for part in named if part not in str(caught.value)] == [], str(caught.value)
    return str(caught.value)


def premises(root: Path) -> list[str]:
    return list(open_source(str(root)).load(TASKS["mnli"], "en", "train").columns["text_a"])


def assert_whole(root: Path, hub: StandIn) -> None:
    """mnli is there, is what the hub has, and nothing else lies beside it."""
    folder = root / "nyu-mll" / "glue"
    content = snapshot(folder)
    assert {name: content[name] for name in (FIRST, SECOND, DEV)} == {
        name: hub.repositories[GLUE][NEW][name] for name in (FIRST, SECOND, DEV)
    }
    assert set(content) == {FIRST, SECOND, DEV, MANIFEST, ".lock"}
    assert premises(root) == [row["premise"] for row in ROWS]
    verify_tasks(root, needs([TASKS["mnli"]]))


# ---- what is fetched


def test_what_was_fetched_serves_without_a_network(hub: StandIn, tmp_path: Path, tiny_backbone: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_backbone.iterdir()}
    hub.repositories[MODEL] = {NEW: files | {"pytorch_model.bin": b"pickled", "code.py": b"raise SystemExit"}}
    hub.heads[MODEL] = NEW
    root = tmp_path / "a mirror"  # with a space: what is printed must be quoted
    given = ["--tasks", "xnli,mnli", "--languages", "de", "--backbone", "someone/tiny", "--to", root]
    done = ok("fetch", *given)
    assert all(name in done.out for name in ("nyu-mll/glue", "facebook/xnli", "someone/tiny", NEW, "CC BY-NC 4.0"))
    gone(hub)

    assert follow_quickly(done, tmp_path).code == 0, "the next command runs on what is there"
    model = root / "models" / "someone" / "tiny"
    assert backbone_identity(str(model)) == backbone_identity(str(tiny_backbone)), "the same content"
    assert not {"pytorch_model.bin", "code.py"} & {path.name for path in model.iterdir()}, "never fetched"
    source = open_source(str(root))
    assert source.languages(TASKS["xnli"]) == ["de", "en"]
    assert len(source.load(TASKS["xnli"], "de", "test")) == 12
    assert premises(root) == [row["premise"] for row in ROWS]

    before = snapshot(root)
    assert "verified" in ok("fetch", *given, "--verify").out
    assert snapshot(root) == before
    assert_refused(xadapt("fetch", *given), "cannot get", "same command", "HF_ENDPOINT", "--data embedded")


def follow_quickly(done: Done, tmp_path: Path) -> Done:
    """Run the command that was printed, for two steps."""
    short = " --max-steps 2 --per-device-train-batch-size 8 --dtype float32 --max-eval-samples 4"
    assert done.last["next"].startswith("xadapt train-intermediate --task mnli --data ")
    return follow(Done(0, f"next: {done.last['next']}{short} --store {tmp_path / 'runs'}\n", ""))


def assert_refused(done: Done, *named: str) -> None:
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert [part for part in named if part not in last] == [], last


def test_the_manifest_states_commit_sizes_hashes_and_licence(hub: StandIn, tmp_path: Path) -> None:
    fetch(tmp_path)
    assert_whole(tmp_path, hub)
    assert set(hub.resolved()) == {FIRST, SECOND, DEV}
    manifest = json.loads((tmp_path / "nyu-mll" / "glue" / MANIFEST).read_text())
    assert (manifest["repository"], manifest["commit"]) == ("nyu-mll/glue", NEW)
    assert manifest["licence"] == TASKS["mnli"].hub.licence
    assert set(manifest["files"]) == {FIRST, SECOND, DEV}
    assert all(set(facts) == {"bytes", "sha256"} for facts in manifest["files"].values())


def test_english_and_what_is_trained_on_come_with_the_languages(hub: StandIn, tmp_path: Path) -> None:
    assert set(fetch(tmp_path, "xnli", languages=["de"]).fetched) == {"nyu-mll/glue", "facebook/xnli"}
    configs = {path.name for path in (tmp_path / "facebook" / "xnli").iterdir() if path.is_dir()}
    assert configs == {"en", "de"}


def test_a_second_fetch_adds_to_the_first_at_its_commit(hub: StandIn, tmp_path: Path) -> None:
    unpinned("xnli")
    fetch(tmp_path, "xnli", languages=["en"])
    hub.repositories[XNLI]["c" * 40] = {"de/test-00000-of-00001.parquet": b"newer"}
    hub.heads[XNLI] = "c" * 40
    hub.got.clear()
    assert fetch(tmp_path, "xnli", languages=["de"]).fetched == {"nyu-mll/glue": 0, "facebook/xnli": 1}
    assert hub.resolved() == ["de/test-00000-of-00001.parquet"]
    manifest = read_manifest(tmp_path / "facebook" / "xnli")
    assert manifest is not None
    assert (manifest.commit, len(manifest.files)) == (XNLI_NOW, 3)
    assert len(open_source(str(tmp_path)).load(TASKS["xnli"], "de", "test")) == 12


def test_every_task_on_a_hub_can_be_fetched_with_one_commit_a_data_set() -> None:
    tasks = [task for task in BUILT_IN.values() if task.hub.dataset]
    wanted = needs(tasks)
    sources = {(n.part.hub.dataset, n.part.hub.revision, n.part.hub.branch) for n in wanted}
    assert len({dataset for dataset, *_ in sources}) == len(sources)
    assert {need.task for need in wanted} == {task.name for task in tasks}


def test_another_branch_is_resolved_to_its_commit(hub: StandIn, tmp_path: Path) -> None:
    task = TASKS["cosmos_qa"]
    repository = f"datasets/{task.hub.dataset}"
    files = {f"default/{split}/0000.parquet": parquet([{"id": split}]) for split in ("train", "validation")}
    hub.repositories[repository] = {OLD: files, NEW: {}}
    hub.heads |= {repository: NEW, f"{repository}@{task.hub.branch}": OLD}
    wanted = needs([unpinned("cosmos_qa")])
    fetch_tasks(tmp_path, wanted, watch=Heard())
    assert set(hub.resolved()) == set(files)
    manifest = read_manifest(tmp_path / task.hub.dataset)
    assert manifest is not None
    assert manifest.commit == OLD


def test_files_that_lie_in_git_are_checked_by_their_blob(hub: StandIn, tmp_path: Path, tiny_backbone: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_backbone.iterdir()}
    hub.repositories[MODEL], hub.heads[MODEL] = {NEW: files}, NEW
    hub.faults = {"tokenizer.json": "wrong"}
    patience = Patience(sleep=lambda seconds: None)
    refused(
        lambda: fetch_backbone(tmp_path, "someone/tiny", watch=Heard(), patience=patience), "tokenizer.json", "hash"
    )
    hub.faults = {}
    folder, manifest = fetch_backbone(tmp_path, "someone/tiny", watch=Heard())
    assert manifest.files["tokenizer.json"].git_sha1
    assert manifest.files["model.safetensors"].sha256
    (folder / "model.safetensors").write_bytes(b"cut")
    refused(lambda: backbone_identity(str(folder)), "model.safetensors", f"--backbone someone/tiny --to {tmp_path}`")


def test_a_task_of_ones_own_is_fetched(hub: StandIn, tmp_path: Path) -> None:
    own = TASKS["mnli"].model_dump(mode="json") | {"name": "my_nli"}
    (tmp_path / "my nli.yaml").write_text(json.dumps(own))
    root = tmp_path / "root"
    try:
        done = ok("fetch", "--tasks", "my_nli", "--task-file", tmp_path / "my nli.yaml", "--to", root)
        assert f"--task my_nli --task-file '{tmp_path}/my nli.yaml' --data" in done.last["next"]
        assert len(open_source(str(root)).load(TASKS["my_nli"], "en", "train")) == len(ROWS)
        (root / "nyu-mll" / "glue" / FIRST).unlink()
        remedy = f"xadapt fetch --tasks my_nli --task-file FILE --to {root}"
        refused(lambda: open_source(str(root)).load(TASKS["my_nli"], "en", "train"), remedy)
    finally:
        TASKS.pop("my_nli", None)


# ---- trouble on the way


@pytest.mark.parametrize("busy", [408, 429, "truncated", "wrong", "long"])
def test_what_passes_is_tried_again(hub: StandIn, tmp_path: Path, busy: int | str) -> None:
    hub.faults = {SECOND: [busy]}
    assert [what for what, _ in fetch(tmp_path).pauses] == [SECOND]
    assert_whole(tmp_path, hub)


@pytest.mark.parametrize("busy", [503, "silent"])
def test_what_the_library_tries_again_is_left_to_it(
    hub: StandIn, tmp_path: Path, busy: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3 if busy == "silent" else 30)
    hub.faults = {SECOND: [busy]}
    assert fetch(tmp_path).pauses == []
    assert_whole(tmp_path, hub)


@pytest.mark.parametrize("place", ["/nyu-mll/glue", f"/revision/{NEW}", SECOND])
@pytest.mark.parametrize(
    ("stated", "seconds"),
    [({"retry_after": "77"}, 77), ({"limit": '"api";r=0;t=55'}, 55), ({}, 1), ({"retry_after": "x"}, 1)],
)
def test_a_hub_that_says_when_to_come_again_is_waited_for(
    hub: StandIn, tmp_path: Path, place: str, stated: dict[str, str], seconds: float
) -> None:
    vars(hub).update(stated)
    hub.faults = {place: [429]}
    heard = fetch(tmp_path)
    assert heard.seconds == ([seconds] if place != "/nyu-mll/glue" else []), "what is pinned is asked for by its commit"
    assert_whole(tmp_path, hub)


def test_a_hub_that_wants_an_hour_is_not_waited_for(hub: StandIn, tmp_path: Path) -> None:
    hub.retry_after, hub.faults = "3600", {f"/revision/{NEW}": 429}
    refused(lambda: fetch(tmp_path), "429", "same command")
    assert len(hub.asked) == 1


def test_a_listing_is_asked_for_again(hub: StandIn, tmp_path: Path) -> None:
    hub.faults = {f"/revision/{NEW}": [503, 504]}
    heard = fetch(tmp_path)
    assert heard.pauses == [("nyu-mll/glue", "it answered 503"), ("nyu-mll/glue", "it answered 504")]
    assert 0 < heard.seconds[0] < heard.seconds[1]
    assert_whole(tmp_path, hub)


@pytest.mark.parametrize(
    ("fault", "said"),
    [(503, "503"), ("wrong", "hash"), (404, "404"), (403, "403"), ("truncated", "broke off"), ("long", "size")],
)
def test_what_does_not_pass_is_an_error_and_part_of_a_data_set_is_never_read(
    hub: StandIn, tmp_path: Path, fault: int | str, said: str
) -> None:
    hub.faults = {SECOND: fault}
    ways = ("same command", "HF_ENDPOINT", "HF_TOKEN", "--data embedded")
    refused(lambda: fetch(tmp_path), SECOND, "nyu-mll/glue", hub.url, said, *ways)
    assert (hub.resolved().count(SECOND) > 1) == (fault not in (404, 403)), "asked again where that may help"
    remedy = f"xadapt fetch --tasks mnli --to {tmp_path}"
    for split in ("train", "validation"):
        message = refused(lambda split=split: open_source(str(tmp_path)).load(TASKS["mnli"], "en", split), remedy)  # type: ignore[misc]
        assert SECOND in message, "the validation split is whole, but the data set is not"
    hub.faults = {}
    fetch(tmp_path)
    assert_whole(tmp_path, hub)


def test_no_hub_is_said_at_once(hub: StandIn, tmp_path: Path) -> None:
    gone(hub)
    heard: list[float] = []
    root = tmp_path / "new"
    wanted = needs([TASKS["mnli"]])
    patience = Patience(sleep=heard.append)
    refused(
        lambda: fetch_tasks(root, wanted, watch=Heard(), patience=patience), "cannot be reached", hub.url, "HF_ENDPOINT"
    )
    assert not heard, "no pause helps against no network"
    assert not root.exists()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes is written at once; by default the library keeps ten megabytes in memory."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1)


def begun(root: Path) -> Path:
    """What came of a file that broke off."""
    return next((root / "nyu-mll" / "glue").rglob("*.incomplete"))


@pytest.mark.usefixtures("small_chunks")
def test_a_broken_download_goes_on_where_it_broke_off(hub: StandIn, tmp_path: Path) -> None:
    content = hub.repositories[GLUE][NEW][SECOND]
    hub.faults = {SECOND: ["truncated", 404]}
    refused(lambda: fetch(tmp_path), "404")
    assert begun(tmp_path).read_bytes() == content[: len(content) // 2]
    hub.ranges.clear()
    fetch(tmp_path)
    assert hub.ranges == [(SECOND, f"bytes={len(content) // 2}-")]
    assert_whole(tmp_path, hub)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("fault", ["whole", "shifted", "wrong"])
def test_a_range_that_is_not_what_was_asked_for_does_no_harm(hub: StandIn, tmp_path: Path, fault: str) -> None:
    hub.faults = {SECOND: ["truncated", fault]}
    fetch(tmp_path)
    assert hub.ranges or fault == "whole"
    assert_whole(tmp_path, hub)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("content", [b"another file's bytes", b"x" * 1_000_000], ids=["short", "long"])
def test_a_partial_file_of_something_else_is_thrown_away(hub: StandIn, tmp_path: Path, content: bytes) -> None:
    hub.faults = {SECOND: ["truncated", 404]}
    refused(lambda: fetch(tmp_path), "404")
    begun(tmp_path).write_bytes(content)
    fetch(tmp_path)
    assert_whole(tmp_path, hub)


@pytest.mark.usefixtures("small_chunks")
def test_a_redirect_is_followed_with_its_range_and_its_secret_kept(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_token_of_a_user")
    signed = f"/signed/{GLUE}/resolve/{NEW}/{SECOND}"
    hub.faults = {signed: ["truncated", 403], f"glue/resolve/{NEW}/{SECOND}": "redirect"}
    message = refused(lambda: fetch(tmp_path), SECOND, "403")
    assert SECRET not in message
    assert "hf_token_of_a_user" not in message
    fetch(tmp_path)
    assert hub.ranges
    assert hub.credited
    assert signed in hub.asked
    assert signed not in hub.credited, "another host is not told who asks"
    assert_whole(tmp_path, hub)
    assert not any(b"hf_token" in content or b"secret" in content for content in snapshot(tmp_path).values())


class Killed(BaseException):
    """The process ends here: nobody catches it."""


def killed() -> None:
    raise Killed


@pytest.mark.slow
@pytest.mark.parametrize(("act", "expected"), [(killed, Killed), (disk_full, UserError)])
def test_a_fetch_that_stops_anywhere_goes_on(
    hub: StandIn, tmp_path: Path, act: Callable[[], None], expected: type[BaseException]
) -> None:
    for number in range(1, 200):
        root = tmp_path / str(number)
        with suppress(expected), at_call(number, act) as made:
            fetch(root)
        if len(made) < number:
            break
        if root.exists():
            _assert_nothing_half(root, hub)
        fetch(root)
        assert_whole(root, hub)
        shutil.rmtree(root)
    assert number > 20, "the calls were counted"
    assert len(made) < number, "the loop came to its end"


def _assert_nothing_half(root: Path, hub: StandIn) -> None:
    """Whatever has its final name is the hub's, and readers get all or nothing."""
    for name, content in snapshot(root).items():
        place = name.removeprefix("nyu-mll/glue/")
        assert (
            place.startswith(INCOMING) or not name.endswith(".parquet") or content == hub.repositories[GLUE][NEW][place]
        )
    with suppress(UserError):
        assert premises(root) == [row["premise"] for row in ROWS]


def test_a_full_disk_is_found_before_the_first_byte(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    refused(lambda: fetch(tmp_path), str(tmp_path), "bytes", "100", "--to")
    assert hub.resolved() == []


def test_two_at_once_fetch_once(hub: StandIn, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("xadapt")), "fetch", "--tasks", "mnli", "--to", str(tmp_path)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "nyu-mll/glue" in out
    assert sorted(hub.resolved()) == sorted([FIRST, SECOND, DEV]), "one of them fetched"
    assert_whole(tmp_path, hub)


# ---- what is there, and is not what it was


def test_damage_is_found_offline_and_mended(hub: StandIn, tmp_path: Path) -> None:
    fetch(tmp_path)
    file = tmp_path / "nyu-mll" / "glue" / FIRST
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    done = xadapt("fetch", "--tasks", "mnli", "--to", tmp_path, "--verify")
    assert_refused(done, FIRST, "without --verify")
    assert fetch(tmp_path).fetched == {"nyu-mll/glue": 1}
    assert_whole(tmp_path, hub)


def test_verify_wants_a_manifest_and_what_the_tasks_need(hub: StandIn, tmp_path: Path) -> None:
    verify = ("fetch", "--to", tmp_path, "--verify", "--tasks")
    assert_refused(xadapt(*verify, "mnli"), str(tmp_path / "nyu-mll" / "glue"), "without --verify")
    fetch(tmp_path)
    assert_refused(xadapt(*verify, "qqp"), "train split of task 'qqp'", "without --verify")


@pytest.mark.parametrize("damage", ["{", "{}", '{"files": {"../x": {}}}'])
def test_a_damaged_manifest_is_named(hub: StandIn, tmp_path: Path, damage: str) -> None:
    fetch(tmp_path)
    path = tmp_path / "nyu-mll" / "glue" / MANIFEST
    path.write_text(damage)
    refused(lambda: premises(tmp_path), str(path), "delete it", "xadapt fetch")
    refused(lambda: fetch(tmp_path), str(path))
    path.unlink()
    fetch(tmp_path)
    assert_whole(tmp_path, hub)


def test_a_folder_of_one_commit_is_not_mixed_with_another(hub: StandIn, tmp_path: Path) -> None:
    fetch(tmp_path)
    task = TASKS["mnli"]
    pinned = task.model_copy(update={"hub": task.hub.model_copy(update={"revision": OLD})})
    wanted = [need.__class__(need.task, pinned.parts[0], "en", need.split) for need in needs([task])]
    refused(lambda: fetch_tasks(tmp_path, wanted, watch=Heard()), NEW, OLD, "--to")


@pytest.mark.parametrize("order", ["mnli,my_nli", "my_nli,mnli"])
def test_what_is_not_pinned_comes_with_what_is(hub: StandIn, tmp_path: Path, order: str) -> None:
    hub.repositories[GLUE]["c" * 40], hub.heads[GLUE] = {}, "c" * 40
    (tmp_path / "my_nli.yaml").write_text(json.dumps(of_ones_own(revision=None)))
    ok("fetch", "--tasks", order, "--task-file", tmp_path / "my_nli.yaml", "--to", tmp_path / "root")
    assert_whole(tmp_path / "root", hub)


def test_two_commits_of_one_data_set_are_refused(hub: StandIn, tmp_path: Path) -> None:
    (tmp_path / "my_nli.yaml").write_text(json.dumps(of_ones_own(revision=OLD)))
    own = ("--task-file", tmp_path / "my_nli.yaml")
    done = xadapt("fetch", "--tasks", "mnli,my_nli", *own, "--to", tmp_path / "root")
    assert_refused(done, "mnli", "my_nli", NEW, OLD, "--to")
    assert hub.asked == []


def of_ones_own(revision: str | None) -> dict[str, Any]:
    """mnli as a user's task, of another commit or of whatever its branch is."""
    own = TASKS["mnli"].model_dump(mode="json") | {"name": "my_nli", "translated": None}
    return own | {"hub": own["hub"] | {"revision": revision}}


@pytest.mark.filterwarnings("ignore:hf_xet:DeprecationWarning")
def test_a_store_of_chunks_that_fails_is_said_with_its_remedy(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.faults = {SECOND: "xet"}
    refused(lambda: fetch(tmp_path), SECOND, "nyu-mll/glue", "HF_HUB_DISABLE_XET=1", "same command")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    fetch(tmp_path)
    assert_whole(tmp_path, hub)


# ---- what is refused before anything is written


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("--tasks xnly", ["'xnly'", "--tasks", "Did you mean 'xnli'"]),
        ("--tasks mnli,,xnli", ["''", "--tasks", "Valid: "]),
        ("--tasks xnli --languages dee", ["'dee'", "--languages", "Did you mean 'de'"]),
        ("--tasks xnli --languages German", ["'German'", "--languages", "'de'"]),
        ("--tasks xnli --languages ta", ["'ta'", "--languages", "xnli", "Valid: ar"]),
        ("--tasks xnli --languages th", ["test split", "'th'", "facebook/xnli", "--languages"]),
        ("--tasks mnli,ccg", ["'ccg'", "--tasks", "licensed"]),
        ("--tasks bucc2018", ["'bucc2018'", "--tasks", "xtreme:FOLDER"]),
        ("--tasks mnli --backbone ../up", ["'../up'", "--backbone", "xlm-roberta-base"]),
        ("--tasks mnli --backbone a/../../b", ["'a/../../b'", "--backbone"]),
        ("--tasks mnli --backbone embedded", ["'embedded'", "--backbone", "no fetching"]),
    ],
)
def test_a_bad_option_is_refused(hub: StandIn, tmp_path: Path, given: str, named: list[str]) -> None:
    root = tmp_path / "new"
    done = xadapt("fetch", *given.split(), "--to", root)
    assert_refused(done, *named)
    assert not (root / "facebook").exists()
    assert not (root / "models").exists()


def test_a_file_is_no_folder(hub: StandIn, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(xadapt("fetch", "--tasks", "mnli", "--to", tmp_path / "file"), str(tmp_path / "file"), "--to")


@pytest.mark.parametrize("name", ["mnli/../../../up-00000-of-00001.parquet", "/etc/up", "mnli//train", "a\0b", ".."])
def test_a_listing_that_leads_out_of_the_folder_is_refused(hub: StandIn, tmp_path: Path, name: str) -> None:
    hub.repositories[GLUE][NEW][name] = b"x"
    message = refused(lambda: fetch(tmp_path / "new"), "nyu-mll/glue", repr(name))
    assert "\0" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_hash_is_refused(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub_stand_in._stated", lambda name, content: {"size": len(content)})
    refused(lambda: fetch(tmp_path), "nyu-mll/glue", ".parquet", "hash")
    assert hub.resolved() == []


def test_shards_that_are_not_all_listed_are_refused(hub: StandIn, tmp_path: Path) -> None:
    del hub.repositories[GLUE][NEW][FIRST]
    refused(lambda: fetch(tmp_path / "new"), "train split", "mnli", NEW)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model.safetensors": None, "pytorch_model.bin": b"pickled"}, ["model.safetensors", "pytorch_model.bin"]),
        ({"config.json": None}, ["config.json"]),
        ({"tokenizer.json": None}, ["tokenizer.json"]),
        ({"config.json": b'{"model_type": "bert"}'}, ["'bert'", "'xlm-roberta'"]),
    ],
    ids=["pickled", "no config", "no tokenizer", "bert"],
)
def test_a_backbone_that_is_none_is_refused_before_its_weights_come(
    hub: StandIn, tmp_path: Path, tiny_backbone: Path, change: dict[str, Any], named: list[str]
) -> None:
    files: dict[str, Any] = {path.name: path.read_bytes() for path in tiny_backbone.iterdir()} | change
    hub.repositories[MODEL] = {NEW: {name: content for name, content in files.items() if content is not None}}
    hub.heads[MODEL] = NEW
    refused(lambda: fetch_backbone(tmp_path, "someone/tiny", watch=Heard()), *named)
    assert not {"model.safetensors", "pytorch_model.bin"} & set(hub.resolved())


def test_a_password_in_the_hubs_address_is_never_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By fetching and by reading the hub, where no connection comes about."""
    only("http://user:s3cret@127.0.0.1:9", monkeypatch, tmp_path / "caches")
    for command in (["fetch", "--tasks", "mnli", "--to", tmp_path / "m"], ["evaluate", "--task", "tatoeba", "--backbone", "someone/x", "--data", "embedded", "--store", tmp_path / "s"]):  # fmt: skip
        done = xadapt(*command)
        assert done.code == 2
        assert "127.0.0.1:9" in done.err
        assert "s3cret" not in done.err + done.out

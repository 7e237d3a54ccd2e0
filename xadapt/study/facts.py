"""The facts behind finished evaluations, from the manifests of all that they rest on; torch-free."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from xadapt.analysis.facts import BEHIND, DEFAULT, Content, Fact, Facts, Path, flattened
from xadapt.study.store import Result
from xadapt.tasks import Task
from xadapt.tasks.user import task_of
from xadapt.training.settings import TrainingSettings

# of a stage's key, what it made; None where that is not in the store
Find = Callable[[str], Result | None]
# what the composition sets in a target's own training
_COMPOSED = ("composition", "fusion")
# what differs between targets in any study, so that it tells no row from another
_OF_THE_TARGET = {"task", "task_version", "task_spec", "lang", "metrics"}
_SPLITS = {"train": "train", "dev": "validation"}


def facts_of(evaluation: Result, find: Find, *, seed: int) -> Facts:
    """Everything hashed behind an evaluation, and what ran where that is not what was planned.

    A training's seed that is the cell's is no fact of its own.
    """
    manifest, task = evaluation.manifest, task_of(evaluation.manifest["spec"])
    spec = dict(manifest["spec"])
    contents: dict[Content, str] = {(task.name, code, "test"): rows for code, rows in spec.pop("languages").items()}
    own: dict[Path, Fact] = {("test", *path): value for path, value in _stage_facts(manifest, spec, seed)}
    needs, behind = list(manifest["needs"]), dict[Path, Fact]()
    if task.trains and needs and (trained := find(needs[0])):
        needs = trained.manifest["needs"]
        for path, value in _stage_facts(trained.manifest, trained.manifest["spec"], seed):
            (behind if path[0] in _COMPOSED else own)[path] = value
        _add(contents, _contents(trained.manifest["spec"]), own)
    elif task.trains and needs:  # what is not known is like nothing else
        own[BEHIND, needs[0]] = "not in this store"
        needs = []
    imported: list[str] = []
    for name, result in _all_behind(needs, find):
        if result is None:
            behind[BEHIND, name] = "not in this store"
            continue
        found = result.manifest
        behind |= {(BEHIND, name, *inner): value for inner, value in _stage_facts(found, found["spec"], seed)}
        _add(contents, _contents(found["spec"]), behind, (BEHIND, name))
        imported += [found["spec"]["task"]] if found["kind"] == "import" else []
    return Facts(
        str(spec["backbone"]), str(evaluation.record.get("dtype", spec["dtype"])),
        str(manifest.get("provenance", {}).get("where", {}).get("data", "")), contents, own, behind,
        _common(task, own, behind), tuple(dict.fromkeys(imported)),
    )  # fmt: skip


def _stage_facts(manifest: Mapping[str, Any], spec: Mapping[str, Any], seed: int) -> Iterator[tuple[Path, Fact]]:
    """A stage's spec without its rows and the seed of its cell, the version of its kind, and what ran if not as planned."""
    for path, value in flattened(_as_of_one_task(spec)):
        of_rows = path[-1] == "data" and len(path) > 1 and path[-2] in _SPLITS
        if not of_rows and (path, value) != (("seed",), seed):
            yield path, value
    if "version" in manifest:
        yield ("version",), manifest["version"]
    planned, ran = spec.get("training", {}).get("dtype"), manifest["record"].get("dtype")
    if planned and ran and ran != planned:
        yield ("training", "ran in"), ran


def _as_of_one_task(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A training on one task says the same of it whether masked language modelling is mixed in or not."""
    tasks = spec.get("tasks", [])
    if [task["auxiliary"] for task in tasks].count(False) != 1:
        return spec
    (own,) = (dict(task) for task in tasks if not task["auxiliary"])
    rest = {**spec, "tasks": [task for task in tasks if task["auxiliary"]]}
    said = {"name": own["train"]["task"], "max_seq_length": spec["training"]["max_seq_length"], "auxiliary": False}
    return rest | {key: value for key, value in own.items() if (key, value) not in said.items()}


def _contents(spec: Mapping[str, Any]) -> dict[Content, str]:
    """The rows of a training by content, each language's apart."""
    found: dict[Content, str] = {}
    for part in spec.get("tasks", [spec]):
        for name, split in _SPLITS.items():
            if rows := part.get(name):
                langs, identities = rows["lang"].split("+"), rows["data"].split(" ")
                if len(langs) != len(identities):
                    langs, identities = [rows["lang"]], [rows["data"]]
                found |= {(rows["task"], lang, split): known for lang, known in zip(langs, identities, strict=True)}
    return found


def _add(contents: dict[Content, str], more: Mapping[Content, str], facts: dict[Path, Fact], at: Path = ()) -> None:
    """Put rows of a stage to those of the others; where two stages read one split with other rows, that is a fact."""
    for key, identity in more.items():
        if contents.setdefault(key, identity) != identity:
            facts[*at, *key, "content"] = identity


def _all_behind(needs: Iterable[str], find: Find, at: str = "") -> Iterator[tuple[str, Result | None]]:
    """Every stage below, with the names of what was trained on the way to it, joined by slashes."""
    for key in needs:
        result = find(key)
        name = at + (_name(result.manifest["kind"], result.manifest["spec"]) if result else key)
        yield name, result
        yield from _all_behind(result.manifest["needs"], find, f"{name}/") if result else ()


def _name(kind: str, spec: Mapping[str, Any]) -> str:
    """What was trained: a task with its languages, or the composition of several."""
    match kind:
        case "import":
            return str(spec["task"])
        case "average":
            return "average"
    if "tasks" not in spec:
        lang = spec["train"]["lang"]
        return str(spec["train"]["task"]) + ("" if lang == "en" else f"@{lang}")
    names = [part["name"] for part in spec["tasks"] if not part["auxiliary"]]
    return str(names[0]) if len(names) == 1 else str(spec["composition"])


def _common(task: Task, own: Mapping[Path, Fact], behind: Mapping[Path, Fact]) -> dict[Path, frozenset[Fact]]:
    """What other targets' cells have too where nothing else was asked for; see `Facts`."""
    regime = str(own.get(("regime", "name"), ""))
    proposed = _proposed(task, regime)
    shared = {("test", "max_samples")} if task.format != "mining" else set()  # which is never capped
    shared |= set() if task.trains else {("test", "retrieval_layer")}
    found = {path: frozenset([value]) for path, value in behind.items() if path[0] not in _COMPOSED}
    for path, value in own.items():
        if set(path) & _OF_THE_TARGET or path[-1] == "version":
            continue
        if path[0] == "training":
            proposal = path[-1] in proposed and value == proposed[path[-1]]
            found[path] = frozenset([value, DEFAULT]) if proposal else frozenset([value])
        elif path[0] != "test" or path in shared:
            found[path] = frozenset([value])
    return found


def _proposed(task: Task, regime: str) -> dict[str, Any]:
    """The numbers of a training for which nothing was asked."""
    return TrainingSettings().model_dump() | task.starting_point(regime) | {"max_seq_length": task.max_seq_length}

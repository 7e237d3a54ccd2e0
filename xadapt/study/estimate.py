"""How long the stages of a plan may take, judged by what finished ones in the store took; torch-free."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from xadapt.errors import UserError
from xadapt.study.stage import STAGE_VERSIONS, Stage
from xadapt.study.store import MANIFEST, Result, Store
from xadapt.tasks.user import task_of

NEWEST = 2000  # records that are read at most
# what finished stages and the one to run have in common, the closest match first; the encoder is always the same
LEVELS = ("task, regime and composition", "task and regime", "task", "regime", "kind")


@dataclass(frozen=True)
class Estimate:
    """Seconds that a stage may take, and what it has in common with the finished ones behind the number, of LEVELS."""

    seconds: float
    like: str


@dataclass(frozen=True)
class _Took:
    """What a finished stage took: seconds whatever its size, and seconds a unit of work."""

    fixed: float | None
    each: float


class Timings:
    """What finished stages took, found again by what they have in common with a stage to run.

    A stage takes the median of what such stages took beside their training or prediction (loading, encoding, selection
    on dev, writing), and their median time an example, or row, for each of its own. Mining is counted in languages, an
    average or import as one.
    """

    def __init__(self, finished: Iterable[Result]) -> None:
        self._took: dict[tuple[str, ...], list[_Took]] = defaultdict(list)
        self._medians: dict[tuple[str, ...], tuple[float, float]] = {}
        for result in finished:
            manifest = result.manifest
            with suppress(KeyError, ZeroDivisionError, TypeError):  # records of earlier versions say less
                took = _took(manifest)
                for key in _matches(manifest["kind"], manifest["spec"]):
                    self._took[key].append(took)

    def estimate(self, stage: Stage) -> Estimate | None:
        """By the closest match there is; None without any on this encoder, or where the stage's size is not known."""
        units = _units(stage)
        if units is None:
            return None
        for level, key in zip(_levels(stage.kind), _matches(stage.kind, stage.spec), strict=True):
            if key in self._took:
                fixed, each = self._median(key)
                return Estimate(fixed + each * units, level)
        return None

    def _median(self, key: tuple[str, ...]) -> tuple[float, float]:
        if key not in self._medians:
            fixed = [took.fixed for took in self._took[key] if took.fixed is not None]
            self._medians[key] = median(fixed or [0.0]), median(took.each for took in self._took[key])
        return self._medians[key]


def finished_stages(store: Store, *, newest: int = NEWEST) -> Iterator[Result]:
    """The results of a store, the newest at most; damaged ones are left out, since stages that need them say so."""
    manifests = [path for kind in STAGE_VERSIONS for path in (store.root / kind).glob(f"*/{MANIFEST}")]
    for path in sorted(manifests, key=_changed)[-newest:]:
        with suppress(UserError):
            if result := store.read(path.parent):
                yield result


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _took(manifest: Mapping[str, Any]) -> _Took:
    record, provenance = manifest["record"], manifest["provenance"]
    whole = provenance["seconds"]
    match manifest["kind"]:
        case "train":
            part, each = record["seconds"], 1 / record["examples_per_second"]
        case "evaluate":
            mining = task_of(manifest["spec"]).format == "mining"
            part = record["seconds"]
            each = part / len(manifest["spec"]["languages"]) if mining else 1 / record["rows_per_second"]
        case _:
            part, each = whole, whole
    # trainings side by side have the clock of all of them
    return _Took(None if provenance.get("together") else max(0.0, whole - part), each)


def _units(stage: Stage) -> float | None:
    """How much work a stage is, as `_took` counts it."""
    if stage.kind not in ("train", "evaluate"):
        return 1
    if stage.kind == "evaluate":
        form = task_of(stage.spec).format
        if form == "mining":
            return len(stage.spec["languages"])
        return stage.examples / 2 if stage.examples and form == "retrieval" else stage.examples
    return stage.examples


def _levels(kind: str) -> Sequence[str]:
    return {"train": LEVELS, "evaluate": ("task", "kind")}.get(kind, ("regime", "kind"))


def _matches(kind: str, spec: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What a stage has in common with others, a key a level."""
    backbone, of = spec["backbone"], {"kind": ""}
    if kind == "evaluate":
        of["task"] = spec["task"]
    else:
        of["regime"] = spec["regime"]["name"]
    if kind == "train":
        task = "+".join(part["train"]["task"] for part in spec.get("tasks", [spec]))
        of |= {
            "task": task, "task and regime": f"{task} {of['regime']}",
            "task, regime and composition": f"{task} {of['regime']} {spec['composition']}",
        }  # fmt: skip
    return [(kind, backbone, level, of[level]) for level in _levels(kind)]

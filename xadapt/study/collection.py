"""From studies and finished evaluations to what can be compared: tidy scores, costs, attention; torch-free."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from xadapt import __version__
from xadapt.analysis.attention import AttentionRecord
from xadapt.analysis.costs import Cost
from xadapt.analysis.differences import column_name
from xadapt.analysis.facts import Facts
from xadapt.analysis.records import Score
from xadapt.analysis.settings import Planned, settings_of
from xadapt.analysis.sweeps import Sweep
from xadapt.analysis.table import Row
from xadapt.analysis.variants import Entry, differing_facts, rows_of
from xadapt.languages import get_language
from xadapt.study.facts import facts_of
from xadapt.study.store import Result, Store
from xadapt.tasks.user import task_of


@dataclass(frozen=True)
class Finished:
    """A finished cell of a study: what the study's file says of it, and the result that fills it.

    rows are those it stands in, mostly one; basis is the same for the cell of composition none that it is a gain over.
    """

    cell: Mapping[str, Any]
    setting: str
    rows: tuple[Row, ...]
    basis: str
    result: Result
    facts: Facts
    study: str
    label: str


class Collection:
    """The finished cells of some studies, by name, and what can be compared in them.

    What is compared with what follows from everything that is hashed behind a result (`study.facts`): cells share a
    setting and a row, and a gain is taken, where that agrees, whatever studies they are of.
    """

    def __init__(self, store: Store, studies: Mapping[str, Mapping[str, Any]]) -> None:
        self._store, self._studies = store, studies
        self._found: dict[str, Result | None] = {}
        self.cells = self._placed(list(self._finished()))
        differing = differing_facts(_entry(cell) for cell in self.cells)
        self._columns = sorted(differing)

    def scores(self) -> list[Score]:
        """The scores of every cell, each once in every row that it stands in.

        Where evaluations of one model share languages, which differ in the languages alone, the larger one's count.
        """
        found: dict[tuple[str, ...], Score] = {}
        for cell in sorted(self.cells, key=lambda cell: -len(cell.result.record["scores"])):
            for row in cell.rows:
                for score in self._scores(cell, row):
                    place = (*_place(cell, row), str(cell.cell["repeats"]), score.language, score.metric)
                    found.setdefault(place, score)
        order = {setting: at for at, setting in enumerate(dict.fromkeys(cell.setting for cell in self.cells))}
        return sorted(found.values(), key=lambda score: order[score.setting])

    def costs(self) -> list[Cost]:
        """What the cells cost; one that repeats none's costs the same, so that sums compare.

        A training whose model was evaluated several times, on other languages each, counts once.
        """
        found: dict[tuple[str, ...], Cost] = {}
        trained: set[tuple[str, ...]] = set()
        for cell in self.cells:
            for row in cell.rows:
                if (identity := _identity(cell, row)) not in found:
                    model = (*_place(cell, row), str(cell.cell["repeats"]), *cell.result.manifest["needs"])
                    once = {} if model not in trained else {"seconds": None, "examples": None}
                    found[identity] = self._cost(cell, row).model_copy(update=once)
                    trained.add(model)
        return list(found.values())

    def attention(self) -> list[AttentionRecord]:
        """What fusions attend to; every fused model of a target once a row."""
        import pyarrow.parquet as pq

        found: dict[tuple[str, ...], AttentionRecord] = {}
        for cell in self.cells:
            file, of = cell.result.folder / "attention.parquet", cell.cell
            if of["composition"] != "fusion" or not file.is_file():
                continue
            shares = {(r["language"], r["layer"], r["module"]): r["attention"] for r in pq.read_table(file).to_pylist()}
            for row in cell.rows:
                record = AttentionRecord(cell.setting, row, of["target"], of["seed"], of["evaluation"], shares)
                found.setdefault(_identity(cell, row), record)
        return list(found.values())

    def sweeps(self) -> list[Sweep]:
        """The studies whose recipes sweep what no row shows: their points' labels and settings."""
        found = []
        for name, study in self._studies.items():
            points = study.get("points", [])
            keys = [key for key in points[0]["values"] if key != "intermediate"] if points else []
            settings = {point["label"]: dict.fromkeys([point["setting"]]) for point in points}
            settings |= {cell.label: dict[str, None]() for cell in self.cells if cell.study == name}
            for cell in (cell for cell in self.cells if cell.study == name):
                settings[cell.label][cell.setting] = None
            if len(settings) > 1:
                found.append(Sweep(name, tuple(keys), {label: tuple(of) for label, of in settings.items()}))
        return found

    def _finished(self) -> Iterator[Finished]:
        for name, study in self._studies.items():
            points = study.get("points")
            for cell in study["cells"]:
                point = (
                    points[cell["point"]] if points and "point" in cell else {"setting": study["setting"], "label": ""}
                )
                if result := self._evaluation(cell["evaluation"]):
                    facts = facts_of(result, self._model, seed=cell["seed"])
                    yield Finished(cell, point["setting"], (), "", result, facts, name, point["label"])

    def _placed(self, cells: list[Finished]) -> list[Finished]:
        """The cells with their settings and rows."""
        settings = settings_of([Planned((cell.study, cell.label), cell.setting, cell.facts) for cell in cells])
        cells = [replace(cell, setting=setting) for cell, setting in zip(cells, settings, strict=True)]
        entries = [_entry(cell) for cell in cells]
        return [
            replace(cell, rows=tuple(dict.fromkeys(rows)), basis=entry.basis)
            for cell, entry, rows in zip(cells, entries, rows_of(entries), strict=True)
        ]

    def _evaluation(self, key: str) -> Result | None:
        return self._read("evaluate", key)

    def _model(self, key: str) -> Result | None:
        """The result a key names, whatever kind of stage made it."""
        return next((result for kind in ("train", "average", "import") if (result := self._read(kind, key))), None)

    def _read(self, kind: str, key: str) -> Result | None:
        name = f"{kind}/{key[:16]}"
        if name not in self._found:
            self._found[name] = self._store.read(self._store.root / name)
        return self._found[name]

    def _cost(self, cell: Finished, row: Row) -> Cost:
        evaluation, of = cell.result, cell.cell
        needs = evaluation.manifest["needs"]
        model = self._model(needs[0]) if needs else None
        # a retrieval target is scored on what lies behind the others' trainings
        trains = task_of(evaluation.manifest["spec"]).trains
        own = model.record if model and trains else {}
        seconds = own.get("seconds")
        return Cost(
            setting=cell.setting, task=of["target"], stage=evaluation.manifest["key"], variant=row.variant,
            **{k: of[k] for k in ("regime", "composition", "intermediate", "seed")},
            **{name: own.get(name) for name in ("trainable_parameters", "flops_per_step", "peak_memory_mib")},
            seconds=seconds, examples=seconds and seconds * own["examples_per_second"],
            before=self._seconds_behind(model.manifest["needs"] if model and trains else needs),
            evaluation_seconds=evaluation.record.get("seconds"),
        )  # fmt: skip

    def _seconds_behind(self, keys: Iterable[str]) -> dict[str, float]:
        """The seconds of the trainings that some stages are or rest on, by key."""
        found: dict[str, float] = {}
        for key in keys:
            if result := self._model(key):
                found[key] = result.record.get("seconds", 0.0)
                found |= self._seconds_behind(result.manifest["needs"])
        return found

    def _scores(self, cell: Finished, row: Row) -> list[Score]:
        of, result, spec = cell.cell, cell.result, cell.result.manifest["spec"]
        needs = result.manifest["needs"]
        model, task = self._model(needs[0]) if needs else None, task_of(spec)
        training = model.manifest["spec"].get("training", {}) if model else {}
        record = model.record if model else {}
        facts = {**cell.facts.own, **cell.facts.behind}
        shared = {
            "task": of["target"],
            "task_version": spec["task_version"],
            **{name: of[name] for name in ("regime", "composition", "intermediate", "seed", "repeats")},
            "variant": row.variant,
            "learning_rate": training.get("learning_rate"),
            "steps": record.get("steps"),
            "train_samples": record.get("train_samples"),
            "train_skipped": self._counted(needs, "train_skipped", "dev_skipped"),
            "train_repaired": self._counted(needs, "train_repaired", "dev_repaired"),
            "setting": cell.setting,
            "basis": cell.basis,
            "signature": _signature(of, result, model, self._imported(model)),
            "stage": result.manifest["key"],
            "numbers": {column_name(path): facts[path] for path in self._columns if path in facts},
        }
        return [
            Score(
                **shared, language=row["language"], family=get_language(row["language"]).family, metric=metric,
                metric_version=spec["metrics"][metric], main=metric == task.main_metric, value=value, n=row["n"],
                collapsed=row["collapsed"], stand_in=row.get("stand_in", ""),
                skipped=row.get("skipped", 0), repaired=row.get("repaired", 0),
            )
            for row in result.record["scores"]
            for metric, value in row["values"].items()
        ]  # fmt: skip

    def _counted(self, keys: Iterable[str], *names: str) -> int:
        """What the records of some trainings, and of all that they rest on, count under these names."""
        found = [result for key in keys if (result := self._model(key))]
        here: int = sum(result.record.get(name, 0) for result in found for name in names)
        return here + sum(self._counted(result.manifest["needs"], *names) for result in found)

    def _imported(self, model: Result | None) -> list[str]:
        """The modules behind a model that others trained: task and content."""
        if model is None:
            return []
        if model.manifest.get("kind") == "import":
            return [f"{model.manifest['spec']['task']}:{model.manifest['spec']['content'][:16]}"]
        return [name for key in model.manifest["needs"] for name in self._imported(self._model(key))]


def _entry(cell: Finished) -> Entry:
    of = cell.cell
    row = Row(of["regime"], of["composition"], of["intermediate"])
    return Entry((cell.study, cell.label, of["seed"]), cell.setting, row, of["target"], cell.facts)


def _identity(cell: Finished, row: Row) -> tuple[str, ...]:
    """What makes a cell the same in two points or studies."""
    of = cell.cell
    return (*_place(cell, row), of["evaluation"], str(of["repeats"]))


def _place(cell: Finished, row: Row) -> tuple[str, ...]:
    """Where a cell stands in the tables."""
    return (cell.setting, row.label, cell.cell["target"], str(cell.cell["seed"]))


def _signature(cell: Mapping[str, Any], result: Result, model: Result | None, imported: Iterable[str]) -> str:
    """One line that names everything behind a number, as sacreBLEU's does."""
    spec = result.manifest["spec"]
    parts = [f"{spec['task']}.v{spec['task_version']}"]
    parts += [f"{name}.v{version}" for name, version in spec["metrics"].items()]
    parts += [f"backbone:{spec['backbone'][:48]}", f"regime:{cell['regime']}", f"comp:{cell['composition']}"]
    parts += [f"inter:{cell['intermediate']}"] if cell["intermediate"] else []
    parts += [f"import:{name}" for name in imported]
    if model:
        regime = model.manifest["spec"]["regime"]
        parts += [f"{name}:{value}" for name, value in regime.items() if name != "name"]
    if model and (training := model.manifest["spec"].get("training")):
        parts += [f"lr:{training['learning_rate']:g}", f"bs:{training['per_device_train_batch_size']}"]
        parts += [f"steps:{model.record['steps']}", f"train:{model.record['train_samples']}"]
    parts += [f"model:{model.manifest['key'][:8]}"] if model else []
    if result.record["retrieval_layer"] is not None:
        parts.append(f"layer:{result.record['retrieval_layer']}")
    ran = result.record.get("dtype", spec["dtype"])
    if model and (trained := model.record.get("dtype", ran)) != ran:
        parts.append(f"trained:{trained}")
    return "|".join([*parts, f"dtype:{ran}", f"seed:{cell['seed']}", f"xadapt:{__version__}"])

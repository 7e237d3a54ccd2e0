"""The rows of a training's tasks: loaded as planned, made robust, encoded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xadapt.data import Rows
from xadapt.data.splits import in_turn
from xadapt.data.synonyms import read_neighbours, synonym_copies
from xadapt.errors import UserError
from xadapt.formats import FORMATS, Features, Format
from xadapt.formats.cache import encoded
from xadapt.models.trimming import TrimmedVocabulary
from xadapt.study.surroundings import Surroundings, load_planned, token_cache
from xadapt.tasks import Task
from xadapt.tasks.span_labels import with_labels
from xadapt.tasks.spec import Split
from xadapt.tasks.user import task_of
from xadapt.training.settings import TrainingSettings


@dataclass(frozen=True)
class TaskRows:
    """One task of a training: its rows, and how they are encoded."""

    name: str
    task: Task
    train: Rows
    dev: Rows
    max_length: int
    auxiliary: bool

    @classmethod
    def of(cls, part: Mapping[str, Any], around: Surroundings, settings: TrainingSettings) -> "TaskRows":
        """Load what a stage's spec says of a task; UserError where it is not what was planned."""
        task = task_of(part["dev"])
        train, dev = _rows(part["train"], "train", around), _rows(part["dev"], "validation", around)
        if (robust := settings.robust) and robust.method == "synonym" and not part.get("auxiliary"):
            neighbours = read_neighbours(Path(around.stage.where["synonyms"]))
            if neighbours.identity != robust.synonyms:
                raise UserError(f"{neighbours.place} has changed since the study was planned; run it again")
            train = synonym_copies(train, neighbours, copies=robust.copies, seed=around.stage.spec["seed"])
        if task.open_labels:
            task = with_labels(task, train.labels)
            dev = dev.relabelled(task.labels)
        length, lang = part.get("max_seq_length", settings.max_seq_length), part["train"]["lang"]
        name = part.get("name", task.name if lang == "en" else f"{task.name}@{lang}")
        return cls(name, task, train, dev, length, part.get("auxiliary", False))

    def encoded(self, around: Surroundings) -> "Encoded":
        """As features."""
        train, dev = (
            encoded(
                self.form, rows, self.task, around.backbone.tokenizer, max_length=self.max_length, folder=token_cache()
            )
            for rows in (self.train, self.dev)
        )
        return Encoded(self, train, dev)

    @property
    def form(self) -> Format:
        return FORMATS[self.task.format]


@dataclass(frozen=True)
class Encoded:
    """A task's rows as features."""

    of: TaskRows
    train: Features
    dev: Features

    def trimmed(self, vocabulary: TrimmedVocabulary) -> "Encoded":
        """The same in the positions of a trimmed word embedding."""
        train, dev = (replace(f, input_ids=vocabulary.map(f.input_ids)) for f in (self.train, self.dev))
        return replace(self, train=train, dev=dev)


def _rows(of: Mapping[str, Any], split: Split, around: Surroundings) -> Rows:
    langs, identities, cap = of["lang"].split("+"), of["data"].split(" "), of["max_samples"]
    parts = [
        load_planned(around.source, task_of(of), lang, split, cap, identity)
        for lang, identity in zip(langs, identities, strict=True)
    ]
    return parts[0] if len(parts) == 1 else in_turn(parts, limit=cap)

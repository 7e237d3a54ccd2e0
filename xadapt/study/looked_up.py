"""What the plan of a study looks up once, whatever number of points and seeds ask for it; torch-free."""

from collections.abc import Sequence
from pathlib import Path

from xadapt.data.sources import open_source
from xadapt.data.synonyms import read_neighbours
from xadapt.models.identity import backbone_identity
from xadapt.study.precision import resolve_dtype
from xadapt.study.recipe import Recipe
from xadapt.study.resolved import NOTHING, Resolved
from xadapt.tasks import Task
from xadapt.tasks.spec import Split


class LookedUp:
    """Backbone and rows of a recipe by content, each looked at once: files are read, and the hub is asked.

    A plan is of one moment, so that a file which changes meanwhile is not seen half old and half new. What an earlier
    plan of the study came to is kept; `resolved` says what this one came to. Raises UserError for what cannot be
    identified.
    """

    def __init__(self, recipe: Recipe, kept: Resolved = NOTHING) -> None:
        self.resolved, self._kept = kept, kept
        self.notes: list[str] = []
        self._source = open_source(recipe.data)
        self.backbone = backbone_identity(recipe.backbone)
        self._identities: dict[tuple[str, str, Split], str] = {}
        self._counts: dict[tuple[str, str, Split], int | None] = {}
        self._languages: dict[str, list[str]] = {}
        self._synonyms: dict[str, str] = {}
        self._here = ""

    def identity(self, task: Task, lang: str, split: Split) -> str:
        """Of the content of a split, whose files can be read: what a study needs at its end is looked at before it starts."""
        key = (task.name, lang, split)
        if key not in self._identities:
            self._source.check(task, lang, split)
            self._identities[key] = self._source.identity(task, lang, split)
        return self._identities[key]

    def count(self, task: Task, langs: Sequence[str], split: Split, cap: int | None) -> int | None:
        """The rows of some languages, each up to the cap; None if they cannot be told without loading them."""
        total = 0
        for lang in langs:
            key = (task.name, lang, split)
            if key not in self._counts:
                self._counts[key] = self._source.count(task, lang, split)
            count = self._counts[key]
            known = cap if count is None else min(count, cap or count)
            if known is None:
                return None
            total += known
        return total

    def languages(self, task: Task) -> list[str]:
        """The languages of the task's that the data has."""
        if task.name not in self._languages:
            self._languages[task.name] = self._source.languages(task)
        return self._languages[task.name]

    def dtype(self, name: str) -> str:
        """What a data type means in this study: `auto` what it came to when the study began, else on this machine."""
        if name != "auto":
            return name
        if not self._here:
            self._here = resolve_dtype(name)
            if (kept := self._kept.dtype) not in ("", self._here):
                self.notes.append(
                    f"dtype {kept}, in which the study began; on this machine alone `auto` would be {self._here}, which "
                    "training.dtype or another name for the study gives"
                )
            self.resolved = self.resolved.model_copy(update={"dtype": kept or self._here})
        return self.resolved.dtype

    def synonyms(self, path: str) -> str:
        """Of the content of a neighbour file."""
        if path not in self._synonyms:
            self._synonyms[path] = read_neighbours(Path(path)).identity
        return self._synonyms[path]

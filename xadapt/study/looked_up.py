"""What the plan of a study looks up once, whatever number of points and seeds ask for it; torch-free."""

from collections.abc import Sequence
from pathlib import Path

from xadapt.data.sources import open_source
from xadapt.data.synonyms import read_neighbours
from xadapt.models.identity import backbone_identity
from xadapt.study.precision import resolve_dtype
from xadapt.study.recipe import Recipe
from xadapt.tasks import Task
from xadapt.tasks.spec import Split


class LookedUp:
    """Backbone and rows of a recipe by content, each looked at once: files are read, and the hub is asked.

    A plan is of one moment, so that a file which changes meanwhile is not seen half old and half new. Raises UserError
    for what cannot be identified.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._source = open_source(recipe.data)
        self.backbone = backbone_identity(recipe.backbone)
        self._identities: dict[tuple[str, str, Split], str] = {}
        self._counts: dict[tuple[str, str, Split], int | None] = {}
        self._languages: dict[str, list[str]] = {}
        self._synonyms: dict[str, str] = {}
        self._dtypes: dict[str, str] = {}

    def identity(self, task: Task, lang: str, split: Split) -> str:
        """Of the content of a split."""
        key = (task.name, lang, split)
        if key not in self._identities:
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
        """What a data type means on this machine."""
        if name not in self._dtypes:
            self._dtypes[name] = resolve_dtype(name)
        return self._dtypes[name]

    def synonyms(self, path: str) -> str:
        """Of the content of a neighbour file."""
        if path not in self._synonyms:
            self._synonyms[path] = read_neighbours(Path(path)).identity
        return self._synonyms[path]

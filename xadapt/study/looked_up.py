"""What the plan of a study looks up once, whatever number of points and seeds ask for it; torch-free."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from xadapt.data.hub import HubSource
from xadapt.data.sources import open_source
from xadapt.data.synonyms import read_neighbours
from xadapt.models.identity import backbone_identity, backbone_moved, model_commit
from xadapt.study.precision import resolve_dtype
from xadapt.study.recipe import Recipe
from xadapt.study.resolved import NOTHING, Resolved
from xadapt.tasks import Task
from xadapt.tasks.catalogue import get_training_data, train_task_of
from xadapt.tasks.spec import Part, Split


class LookedUp:
    """Backbone and rows of a recipe by content, each looked at once: files are read, and the hub is asked.

    A plan is of one moment, so that a file which changes meanwhile is not seen half old and half new. What an earlier
    plan of the study came to is kept, but with update_data for the data and the encoder; `resolved` says what this one
    came to. Raises UserError for what cannot be identified.
    """

    def __init__(self, recipe: Recipe, kept: Resolved = NOTHING, *, update_data: bool = False) -> None:
        self._kept, self._dtype = kept, kept.dtype
        commits = {} if update_data else kept.commits
        self.notes: list[str] = []
        self._source = open_source(recipe.data, commits=commits, newest=update_data)
        self._backbone_name = recipe.backbone
        self._backbone_at = model_commit(recipe.backbone, commits, newest=update_data)
        self.backbone = backbone_identity(recipe.backbone, commits=self._backbone_at)
        if isinstance(self._source, HubSource):
            for task, part in _data_sets(recipe):
                self._source.settle(task, part)
        self._identities: dict[tuple[str, str, Split], str] = {}
        self._counts: dict[tuple[str, str, Split], int | None] = {}
        self._languages: dict[str, list[str]] = {}
        self._synonyms: dict[str, str] = {}
        self._here = ""

    def identity(self, task: Task, lang: str, split: Split) -> str:
        """Of the content of a split, whose files can be read: what a study needs at its end is looked at before it starts."""
        key = (task.name, lang, split)
        if key not in self._identities:
            self._identities[key] = self._source.identity(task, lang, split)
            self._source.check(task, lang, split)
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
            self._dtype = kept or self._here
        return self._dtype

    @property
    def commits(self) -> dict[str, str]:
        """Those at which the hub was read so far, by `<kind>s/<name>@<branch>`, and `@<commit>` for what is pinned."""
        read = self._source.read_at if isinstance(self._source, HubSource) else {}
        return self._backbone_at | read

    @property
    def resolved(self) -> Resolved:
        """What the open choices came to so far, and earlier of what this plan does not read."""
        branches = {key: commit for key, commit in self.commits.items() if not key.endswith(f"@{commit}")}
        return Resolved(dtype=self._dtype, commits=self._kept.commits | branches)

    def moved(self) -> list[str]:
        """What it would change to read the newest of what an earlier plan has read, where it is anything."""
        data = self._source.moved() if isinstance(self._source, HubSource) else []
        return data + backbone_moved(self._backbone_name, self._kept.commits)

    def synonyms(self, path: str) -> str:
        """Of the content of a neighbour file."""
        if path not in self._synonyms:
            self._synonyms[path] = read_neighbours(Path(path)).identity
        return self._synonyms[path]


def _data_sets(recipe: Recipe) -> Iterator[tuple[Task, Part]]:
    """What the recipe's trainings and evaluations read of the hub, so that all of its stages know every commit."""
    for name in [*recipe.targets, *(name for name in recipe.intermediate if name not in recipe.modules)]:
        data = get_training_data(name)
        read = [(data.task, part) for part in data.task.parts]
        if data.task.trains:
            trained = train_task_of(data.task)
            read += [(trained, part) for lang in data.langs for part in trained.parts_in(lang)]
        yield from ((task, part) for task, part in read if part.hub.dataset)

"""What tasks need of the hub, fetched into a folder that `--data` reads without a network."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from xadapt.data.hub import repository_of, whole_split
from xadapt.data.hub_record import Repository
from xadapt.data.manifest import Manifest
from xadapt.data.snapshot import Watch, fetch_snapshot, verify_snapshot
from xadapt.data.splits import shares
from xadapt.data.transfer import Patience
from xadapt.errors import UserError, unknown
from xadapt.languages import get_language
from xadapt.tasks import TASKS, Task
from xadapt.tasks.spec import Part, Split, fill


@dataclass(frozen=True)
class Need:
    """One split of one of a task's data sets in one language; asked says that it is to be trained on."""

    task: str
    part: Part
    lang: str
    split: Split
    asked: bool = False

    @property
    def required(self) -> bool:
        """Whether the task cannot do without: training is English unless it is asked for in another language."""
        return self.asked or self.lang == "en" or self.split == "test"

    def files(self, names: Collection[str], place: str) -> list[str]:
        """The files, among a repository's names, of the first of the split's names that is there whole.

        Empty for a split that is not there and not required, else UserError; place says whose names they are.
        """
        config, wanted = fill(self.part.hub.config, self.lang), shares(self.part, self.split)
        files, share = whole_split(config, wanted, names, place)
        if share or not self.required:
            return files
        looked = " or ".join(" and ".join(share.names) for share in wanted)
        raise UserError(
            f"{place} has no complete {self.split} split of task '{self.task}' for '{self.lang}' (looked for {looked} in "
            f"{config}/); leave the language out with --languages, or the task with --tasks"
        )


def needs(
    tasks: Sequence[Task], languages: Sequence[str] | None = None, *,
    train_languages: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Need]:  # fmt: skip
    """Every split that the tasks, and what they train on, have in the languages and in English; None: in all.

    train_languages are those a task, by its name, is to be trained in beside English, translated or not. Raises
    UserError for a language that none of the tasks has, and for a task that lies on no hub.
    """
    every = list({t.name: t for task in tasks for t in (TASKS[task.train_task], task)}.values())
    for task in every:
        if not all(part.hub.dataset for part in task.parts):
            where = task.hub.elsewhere or "its spec names no data set"
            raise UserError(f"task '{task.name}' in --tasks cannot be fetched: {where}. Leave it out of --tasks")
    has = sorted({lang for task in every for lang in task.languages})
    for lang in languages or ():
        if lang not in has:
            raise unknown(
                "language",
                get_language(lang).code,
                has,
                place=f"--languages (tasks {', '.join(t.name for t in every)})",
            )
    trained = [
        Need(task.name, part, lang, "train", asked=True)
        for task in every
        for lang in train_languages.get(task.name, ())
        for part in task.parts_in(lang)
    ]
    return trained + [
        Need(task.name, part, lang, split)
        for task in every
        for lang in task.languages
        if languages is None or lang == "en" or lang in languages
        for part in task.parts
        for split in part.splits
    ]


def fetch_tasks(
    root: Path, wanted: Sequence[Need], *, watch: Watch, patience: Patience | None = None
) -> list[tuple[Path, Manifest]]:
    """Fetch what is needed to `<root>/<owner>/<dataset>/`, a data set at one commit; the folders and manifests.

    Raises UserError as `snapshot.fetch_snapshot` does.
    """
    return [
        (root / data.name, fetch_snapshot(data, root / data.name, pick, patience or Patience(), watch))
        for data, pick in _by_data_set(wanted)
    ]


def verify_tasks(root: Path, wanted: Sequence[Need]) -> list[tuple[Path, Manifest]]:
    """Hash what was fetched again, without a network; UserError names what is missing or damaged."""
    return [(root / data.name, verify_snapshot(data, root / data.name, pick)) for data, pick in _by_data_set(wanted)]


def _by_data_set(wanted: Sequence[Need]) -> list[tuple[Repository, partial[list[str]]]]:
    found = []
    for name in dict.fromkeys(need.part.hub.dataset for need in wanted):
        own = [need for need in wanted if need.part.hub.dataset == name]
        licences = "; ".join(dict.fromkeys(need.part.hub.licence for need in own))
        found.append((_one_commit(own).model_copy(update={"licence": licences}), partial(_files, own)))
    return found


def _one_commit(own: Sequence[Need]) -> Repository:
    """The repository of what is needed of one data set; what is not pinned goes with what is."""
    wanted = {repository_of(need.part.hub).key: need for need in own}
    pinned = {key: need for key, need in wanted.items() if need.part.hub.revision}
    if len(chosen := pinned or wanted) > 1:
        first, second = list(chosen.items())[:2]
        raise UserError(
            f"--tasks: {first[1].task} reads {first[0].removeprefix('datasets/')} and {second[1].task} "
            f"{second[0].removeprefix('datasets/')}, and a folder holds one commit; fetch one into another --to"
        )
    return repository_of(next(iter(chosen.values())).part.hub)


def _files(own: Sequence[Need], names: Collection[str], place: str) -> list[str]:
    return sorted({file for need in own for file in need.files(names, place)})

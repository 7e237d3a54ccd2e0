"""What a user has removed from a store by name: versions of studies, and results by their keys; torch-free."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xadapt.durable import sync
from xadapt.errors import UserError, unknown
from xadapt.study.cleaning import Waste, drop, refuse_while_running
from xadapt.study.inventory import Entry, behind, head, list_entries, pick
from xadapt.study.study_files import StudyFile, read_studies, versions, whole

_HEX = re.compile(r"[0-9a-fA-F]{1,64}")


@dataclass(frozen=True)
class Removal:
    """What goes: studies, and entries, each before what it needs.

    named_by has, for each entry that studies which stay name, their titles; left are the results that nothing reaches any
    more once the studies are gone, and that stay.
    """

    studies: tuple[StudyFile, ...]
    entries: tuple[Entry, ...]
    named_by: tuple[tuple[Entry, str], ...]
    left: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries)


def plan_removal(root: Path, names: Sequence[str], *, results: bool = False) -> Removal:
    """What the removal of studies (NAME for all versions, NAME@VERSION for one) and results (beginnings of keys) takes along.

    With `results` the results go, too, that the studies reach and no other study does. Raises UserError for names that are
    not there, for a result that another one needs, and where it cannot be known what needs one.
    """
    entries, studies = list_entries(root), read_studies(root)
    gone: dict[Path, StudyFile] = {}
    picked: dict[Path, Entry] = {}
    for name in names:
        for found in named(name, entries, studies, root):
            if isinstance(found, StudyFile):
                gone[found.path] = found
            else:
                picked[found.folder] = found
    staying = [study for study in studies if study.path not in gone]
    alone = _reached_alone(list(gone.values()), staying, entries, sure=results)
    if results:
        picked |= {entry.folder: entry for entry in alone}
    _refuse_what_is_needed(picked, entries, root)
    named_by = tuple((e, study.title) for e in picked.values() for study in staying if e.key in study.stages)
    left = tuple(entry for entry in alone if entry.folder not in picked)
    return Removal(tuple(gone.values()), _dependents_first(picked), named_by, left)


def remove(removal: Removal) -> Iterator[tuple[Path, bool]]:
    """Delete it, and say of each file and folder whether it went; one that somebody holds the lock of stays."""
    for study in removal.studies:  # first, so that no study lacks results that it had
        study.path.unlink(missing_ok=True)
        sync(study.path.parent)
        yield study.path, True
    for entry in removal.entries:
        yield entry.folder, drop(Waste(entry.folder, "named", entry.bytes, entry.label))


def named(
    name: str, entries: Sequence[Entry], studies: Sequence[StudyFile], root: Path
) -> Sequence[StudyFile] | Sequence[Entry]:
    """The versions of a study, or the one result, that a name means; a study comes before a key that begins like its name."""
    if any(name in (study.name, study.title) for study in studies):
        return versions(studies, name, root=root)
    if not _HEX.fullmatch(name):
        valid = dict.fromkeys([*(study.name for study in studies), *(head(entry.key) for entry in entries)])
        raise unknown("study or key", name, valid, place=f"the store '{root}'")
    return [pick(entries, name, root=root)]


def _reached_alone(
    gone: Sequence[StudyFile], staying: Sequence[StudyFile], entries: Sequence[Entry], *, sure: bool
) -> list[Entry]:
    """The results that these studies reach and none of those that stay; with `sure` all of those must be readable."""
    if sure:
        staying = [whole(study) for study in staying]
    kept = behind({key for study in staying for key in study.stages}, entries)
    reached = behind({key for study in gone for key in study.stages}, entries)
    return [entry for digits, entry in reached.items() if digits not in kept]


def _refuse_what_is_needed(picked: dict[Path, Entry], entries: Sequence[Entry], root: Path) -> None:
    keys = {entry.key for entry in picked.values() if entry.is_result}
    for entry in picked.values():
        if entry.folder.is_symlink():
            raise UserError(
                f"{entry.folder} is a link, and what it leads to may be another store's; delete it yourself"
            )
    if any(entry.is_result and entry.kind != "evaluate" for entry in picked.values()):
        refuse_while_running(entries, root, instead="stop it")
    dependents = [e for e in entries if e.folder not in picked and keys & set(e.needs)]
    if dependents:
        needed = next(e for e in picked.values() if e.key in dependents[0].needs)
        more = " ".join(head(entry.key) for entry in dependents)
        raise UserError(
            f"{needed.name} is needed by {', '.join(entry.name for entry in dependents[:5])}"
            f"{' and others' if len(dependents) > 5 else ''}; name what needs it, too ({more}), or leave it"
        )


def _dependents_first(picked: dict[Path, Entry]) -> tuple[Entry, ...]:
    results = [entry for entry in picked.values() if entry.is_result]
    ordered = list(behind((entry.key for entry in results), results).values())[::-1]
    return (*ordered, *(entry for entry in picked.values() if entry not in ordered))

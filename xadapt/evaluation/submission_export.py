"""Finished evaluations as a submission: predictions in XTREME's layout, what `xadapt score` and XTREME's scorer read."""

import filecmp
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xadapt.errors import UserError, unknown
from xadapt.evaluation.submission_files import SUBMISSION_TASKS, SubmissionTask
from xadapt.tasks.user import task_of

Line = Mapping[str, Any]  # one row of a predictions file: language, id, prediction, gold, score


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation of a task of XTREME's: what its stage was, what it recorded, the file of its predictions."""

    spec: Mapping[str, Any]
    record: Mapping[str, Any]
    predictions: Path

    @property
    def layout(self) -> SubmissionTask:
        """The task as XTREME's scorer sees it."""
        return SUBMISSION_TASKS[self.spec["task"]]


def submitted_targets(targets: Sequence[str], wanted: Collection[str], *, place: str) -> list[str]:
    """Those of a study's targets that are submitted: the wanted ones, else all, which then must be XTREME's nine.

    Raises UserError for a wanted one that the study lacks, one that XTREME lacks, a missing one of the nine, and two
    of one task, such as `xnli` and `xnli@de`.
    """
    for target in wanted:
        if target not in targets:
            raise unknown("task", target, targets, place=f"--task: {place} has no such target")
    chosen = [target for target in targets if target in wanted or not wanted]
    ours = [target for target in targets if _task(target) in SUBMISSION_TASKS]
    alone = f"export some of them alone with --task {','.join(ours)}" if ours else "XTREME's scorer knows no other"
    if strange := [target for target in chosen if target not in ours]:
        nine = ", ".join(SUBMISSION_TASKS)
        raise UserError(f"{place}: task '{strange[0]}' is none of XTREME's nine ({nine}); {alone}")
    tasks = Counter(_task(target) for target in chosen)
    if twice := [target for target in chosen if tasks[_task(target)] > 1]:
        raise UserError(
            f"{place}: {' and '.join(twice)} are one task in a submission; choose one with --task {twice[0]}"
        )
    if not wanted and (missing := [name for name in SUBMISSION_TASKS if name not in tasks]):
        raise UserError(f"{place} has no {', '.join(missing)}: a submission is XTREME's nine tasks; {alone}")
    return chosen


def check_whole(evaluations: Sequence[Evaluated], *, place: str) -> None:
    """UserError naming tasks, languages and counts unless each evaluation has every test row of every language."""
    if partial := [f"{found.layout.name}: {'; '.join(faults)}" for found in evaluations if (faults := _faults(found))]:
        raise UserError(
            f"{place} is no whole submission. {'. '.join(partial)}. Evaluate every row of every language, or choose the "
            "tasks that are whole with --task"
        )


def write_submission(evaluations: Sequence[Evaluated], folder: Path) -> list[Path]:
    """Write `<folder>/<task>/test-<lang>.tsv` or `.json` of every evaluation, all or nothing; the files.

    Raises UserError for a folder that holds anything but these very files, and OSError.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file; name a folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        names = [name for found in evaluations for name in _write(found, partial)]
        if not folder.is_dir() or not any(folder.iterdir()):
            os.replace(partial, folder)
        elif other := _difference(partial, folder):
            raise UserError(
                f"'{folder}' holds another submission ({other} differs); name a new folder or empty this one"
            )
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [folder / name for name in names]


def _task(target: str) -> str:
    """A target's task, whatever language it trains in."""
    return target.partition("@")[0]


def _faults(found: Evaluated) -> list[str]:
    """What an evaluation lacks of a task's files, languages of one fault together."""
    scores = {score["language"]: score for score in found.record["scores"]}
    missing = [lang for lang in found.layout.languages if lang not in scores]
    faults: dict[str, list[str]] = {}
    for lang, score in scores.items():
        for fault in _row_faults(score, found.layout.rows.get(lang), found.spec["max_samples"]):
            faults.setdefault(fault, []).append(lang)
    there = f"{len(missing)} of its {len(found.layout.languages)} languages missing ({' '.join(missing)})"
    return [*([there] if missing else []), *(f"{fault} in {' '.join(langs)}" for fault, langs in faults.items())]


def _row_faults(score: Mapping[str, Any], wanted: int | None, cap: int | None) -> Iterator[str]:
    if stand_in := score.get("stand_in"):
        yield f"rows of the {stand_in} split in place of test"
    if skipped := score.get("skipped"):
        yield f"{skipped:,} rows left out, which shifts the lines behind them,"
    elif wanted is not None and score["n"] != wanted:
        yield f"{score['n']:,} of {wanted:,} rows"
    elif wanted is None and cap is not None and score["n"] >= cap:
        yield f"the first {cap:,} rows alone"


def _write(found: Evaluated, folder: Path) -> Iterator[Path]:
    """Write one evaluation's files, one a language also where nothing is predicted; their names below the folder."""
    import pyarrow.parquet as pq

    layout, task = found.layout, task_of(found.spec)
    names = {name: alias for alias, name in task.aliases.items()}
    by_language: dict[str, list[Line]] = {lang: [] for lang in layout.languages}
    for batch in pq.ParquetFile(found.predictions).iter_batches():
        for line in batch.to_pylist():
            by_language[line["language"]].append(line)
    (folder / task.name).mkdir(parents=True)
    for lang, lines in by_language.items():
        name = Path(task.name) / f"test-{lang}{layout.suffix}"
        (folder / name).write_text(_content(layout, lines, names), encoding="utf-8", newline="\n")
        yield name


def _content(layout: SubmissionTask, lines: Sequence[Line], names: Mapping[str, str]) -> str:
    if layout.kind == "answers":
        return json.dumps({line["id"]: line["prediction"] for line in lines}, ensure_ascii=False, indent=1) + "\n"
    return "".join(f"{text}\n" for text in _texts(layout, lines, names))


def _texts(layout: SubmissionTask, lines: Sequence[Line], names: Mapping[str, str]) -> Iterator[str]:
    for line in lines:
        prediction = line["prediction"]
        if layout.kind == "tags":
            yield from (*prediction.split(" "), "")
        elif layout.kind == "labels":
            yield names.get(prediction, prediction)
        elif prediction:
            yield f"{line['id']}\t{prediction}"


def _difference(ours: Path, theirs: Path) -> str | None:
    """The first file that is not the same in both folders, if any."""
    names = {str(path.relative_to(root)) for root in (ours, theirs) for path in root.rglob("*") if path.is_file()}
    _, different, unreadable = filecmp.cmpfiles(ours, theirs, sorted(names), shallow=False)
    return min([*different, *unreadable], default=None)

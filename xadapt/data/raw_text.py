"""Raw text for masked language modelling: a file with one example a line."""

from dataclasses import replace
from pathlib import Path

from xadapt.data.files import read_lines
from xadapt.data.rows import Rows, canonical_rows
from xadapt.tasks import Task
from xadapt.tasks.spec import Split


def raw_text_files(folder: Path, split: Split) -> list[Path]:
    """`<split>.txt` below a folder, if it is there."""
    return [file for file in [folder / f"{split}.txt"] if file.is_file()]


def read_raw_text(task: Task, lang: str, split: Split, file: Path, *, identity: str, limit: int | None) -> Rows:
    """The first `limit` lines that are not blank, the blank ones before the last of them counted as skipped.

    Raises UserError for a file that is empty or not UTF-8.
    """
    lines = read_lines(file)
    kept = [at for at, line in enumerate(lines) if line.strip()][:limit]
    raw = {task.columns["text"]: [lines[at].strip() for at in kept]}
    rows = canonical_rows(task, lang, split, raw, identity=identity, place=str(file))
    return replace(rows, skipped=kept[-1] + 1 - len(kept))

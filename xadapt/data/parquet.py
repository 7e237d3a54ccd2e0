"""Parquet files, with the label names that `datasets` keeps in them, to canonical rows."""

import re
from collections.abc import Sequence
from pathlib import Path

from xadapt.data.rows import Rows, canonical_rows
from xadapt.errors import UserError
from xadapt.tasks import Task


def complete_shards(folder: Path, split: str) -> list[Path]:
    """The hub's shards `<split>-00000-of-0000N.parquet` in a folder, in order; empty unless all N are there.

    Raises UserError if the split lies there whole more than once, cut into different numbers of shards.
    """
    found = {file.name for file in folder.glob(f"{split}-*-of-*.parquet")}
    totals = sorted({int(total[1]) for name in found if (total := re.search(r"-of-(\d{5})\.parquet$", name))})
    cuts = [[f"{split}-{shard:05}-of-{total:05}.parquet" for shard in range(total)] for total in totals]
    whole = [names for names in cuts if names and found.issuperset(names)]
    if len(whole) > 1:
        kept = " and ".join(names[-1] for names in whole)
        raise UserError(f"{folder} has the {split} split more than once ({kept}); remove all but one")
    return [folder / name for names in whole for name in names]


def read_parquet(task: Task, lang: str, split: str, files: Sequence[Path], *, identity: str, limit: int | None) -> Rows:
    """Read the first `limit` rows of the files in order; raises UserError for what cannot be read or used."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, left = [], limit
    for file in files:
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file} is not a readable Parquet file ({error}); fetch it again") from error
        tables.append(table if left is None else table.slice(0, left))
        left = None if left is None else left - len(tables[-1])
        if left == 0:
            break
    place = str(files[0]) if len(files) == 1 else f"{files[0].parent}/{split}-*.parquet"
    names = _label_names(tables[0].schema, task)
    try:
        merged = pa.concat_tables(tables)
        raw = {name: merged.column(name).to_pylist() for name in merged.column_names if name in task.columns.values()}
    except (pa.ArrowException, UnicodeDecodeError) as error:  # shards of different columns; text that is not UTF-8
        raise UserError(f"{place} cannot be read as one table ({error}); fetch it again") from error
    missing = set(task.columns.values()) - set(raw)
    if missing:  # name every column of the file, not only those the spec knows
        raw = {column: [] for column in merged.column_names}
    return canonical_rows(task, lang, split, raw, identity=identity, place=place, label_names=names)


def _label_names(schema: object, task: Task) -> Sequence[str] | None:
    """The names behind integer labels, from the `datasets` features stored in the file."""
    from datasets import ClassLabel, Features

    column = task.columns.get("label") or task.columns.get("tags")
    feature = Features.from_arrow_schema(schema).get(column) if column else None
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None

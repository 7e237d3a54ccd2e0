"""Parquet files, with the label names that `datasets` keeps in them, to canonical rows."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from xadapt.data.rows import Rows, canonical_rows
from xadapt.data.splits import Share
from xadapt.errors import UserError, unknown
from xadapt.tasks import Task


def complete_shards(folder: Path, split: str) -> list[Path]:
    """The hub's shards of a split in a folder; empty unless all are there. Raises UserError as `whole_shards` does."""
    files = [*folder.glob(f"{split}-*-of-*.parquet"), *(folder / split).glob("*.parquet")]
    names = {file.relative_to(folder).as_posix() for file in files}
    return [folder / name for name in whole_shards(names, split, str(folder))]


def whole_shards(names: Collection[str], split: str, place: str) -> list[str]:
    """The names, below a config, of `<split>-00000-of-0000N.parquet` or `<split>/0000.parquet`; empty unless all are there.

    Raises UserError, naming the place, if the split is there whole more than once, cut into different numbers of shards.
    """
    if converted := sorted(n for n in names if re.fullmatch(rf"{re.escape(split)}/\d{{4}}\.parquet", n)):
        return converted if converted == [f"{split}/{at:04}.parquet" for at in range(len(converted))] else []
    shard = re.compile(rf"{re.escape(split)}-\d{{5}}-of-(\d{{5}})\.parquet")
    found = {name: int(match[1]) for name in names if (match := shard.fullmatch(name))}
    cuts = [[f"{split}-{at:05}-of-{total:05}.parquet" for at in range(total)] for total in sorted({*found.values()})]
    whole = [cut for cut in cuts if cut and found.keys() >= set(cut)]
    if len(whole) > 1:
        kept = " and ".join(cut[-1] for cut in whole)
        raise UserError(f"{place} has the {split} split more than once ({kept}); remove all but one")
    return [name for cut in whole for name in cut]


def read_parquet(
    task: Task, lang: str, split: str, files: Sequence[Path], *, identity: str, limit: int | None,
    share: Share | None = None, id_prefix: str = "",
) -> Rows:  # fmt: skip
    """Read the first `limit` rows of the files in order; raises UserError for what cannot be read or used.

    share takes a part of them, id_prefix only rows whose `id` begins so (both before `limit`).
    """
    import pyarrow as pa

    whole = bool(share and share.suffix) or bool(id_prefix) or bool(task.skip)  # rows go: read all, then cut
    tables = _tables(files, None if whole else limit)
    place = str(files[0]) if len(files) == 1 else f"{files[0].parent}/{split}-*.parquet"
    names = _label_names(tables[0].schema, task)
    try:
        merged = pa.concat_tables(tables)
        merged = _chosen(merged, share, id_prefix, place)
        raw = {name: merged.column(name).to_pylist() for name in merged.column_names if name in task.source_columns}
    except (pa.ArrowException, UnicodeDecodeError) as error:  # shards of different columns; text that is not UTF-8
        raise UserError(f"{place} cannot be read as one table ({error}); fetch it again") from error
    if set(task.source_columns) - set(raw):  # name every column of the file, not only those the spec knows
        raw = {column: [] for column in merged.column_names}
    return canonical_rows(
        task, lang, split, raw, identity=identity, place=place, label_names=names, limit=limit if whole else None
    )


def _tables(files: Sequence[Path], limit: int | None) -> list[Any]:
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
    return tables


def _chosen(table: Any, share: Share | None, id_prefix: str, place: str) -> Any:
    import pyarrow.compute as pc

    if id_prefix:
        if "id" not in table.column_names:
            raise unknown("column", "id", table.column_names, place=f"{place}, which tells languages by it")
        table = table.filter(pc.starts_with(table.column("id"), pattern=id_prefix))
    if share and share.suffix:
        start, stop = share.bounds(len(table))
        table = table.slice(start, stop - start)
    return table


def _label_names(schema: object, task: Task) -> Sequence[str] | None:
    """The names behind integer labels, from the `datasets` features stored in the file."""
    from datasets import ClassLabel, Features

    column = task.columns.get("label") or task.columns.get("tags")
    feature = Features.from_arrow_schema(schema).get(column) if column else None
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None

"""Parquet files, with the label names that `datasets` keeps in them, to canonical rows."""

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from xadapt.data.checks import At, checked_texts
from xadapt.data.defects import Allowance
from xadapt.data.rows import Rows, canonical_rows, check_columns, without_rows
from xadapt.data.splits import Share
from xadapt.errors import UserError, short, unknown
from xadapt.tasks import Task
from xadapt.tasks.spec import Split

BUFFER = 1 << 20


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
    task: Task, lang: str, split: Split, files: Sequence[Path], *, identity: str, limit: int | None,
    share: Share | None = None, id_prefix: str = "",
) -> Rows:  # fmt: skip
    """Read the first `limit` rows of the files in order; raises UserError for what cannot be read or used.

    share takes a part of them, id_prefix only rows whose `id` begins so (both before `limit`).
    """
    into = ParquetRows(task, lang, split, identity, files)
    if limit is not None and not (share and share.suffix) and not id_prefix and not task.skip:
        rows = _read(into, _tables(files, limit), Allowance(task, lambda: count_rows(files)), may_be_empty=True)
        if len(rows) == limit or (rows and not rows.skipped):
            return rows  # else rows had defects: as many others follow them
    tables = _tables(files, None)
    return _read(into, tables, None, share=share, id_prefix=id_prefix, limit=limit)


def _read(
    into: "ParquetRows", tables: Sequence[Any], allowance: Allowance | None, *, share: Share | None = None,
    id_prefix: str = "", limit: int | None = None, may_be_empty: bool = False,
) -> Rows:  # fmt: skip
    """The rows of the files' tables, in order."""
    import pyarrow as pa

    at = _located(into.files, [len(table) for table in tables])
    into.check_one_table([table.schema for table in tables])
    rows = of_language(merged := pa.concat_tables(tables), id_prefix, into.place, at)
    start, stop = share.bounds(len(rows)) if share else (0, len(rows))
    names = label_names(tables[0].schema, into.task, str(into.files[0]))
    return into.rows(merged, rows[start:stop], at, names, limit=limit, allowance=allowance, may_be_empty=may_be_empty)


@dataclass(frozen=True)
class ParquetRows:
    """What the rows of some files are to become."""

    task: Task
    lang: str
    split: Split
    identity: str
    files: Sequence[Path]

    @property
    def place(self) -> str:
        """What messages call the files."""
        one = len(self.files) == 1
        return str(self.files[0]) if one else f"{self.files[0].parent}/{self.split}-*.parquet"

    def check_one_table(self, schemas: Sequence[Any]) -> None:
        """UserError for shards of different columns."""
        import pyarrow as pa

        try:
            pa.concat_tables([schema.empty_table() for schema in schemas])
        except pa.ArrowException as error:
            raise UserError(
                f"{self.place} are not shards of one table ({_first_line(error)}); fetch them again"
            ) from error

    def check(self, *, id_prefix: str = "") -> None:
        """UserError for what the files' ends tell: no Parquet, no rows, no shards of one table, a column that is missing."""
        schemas = []
        for file in self.files:
            with opened(file) as parquet:
                check_names(file, parquet.schema_arrow.names)
                schemas.append(parquet.schema_arrow)
        self.check_one_table(schemas)
        check_columns(self.task, schemas[0].names, self.place)
        if id_prefix:
            of_language(schemas[0].empty_table(), id_prefix, self.place, str)
        label_names(schemas[0], self.task, str(self.files[0]))
        if not count_rows(self.files):
            raise without_rows(self.task, self.split, self.place)

    def rows(
        self, table: Any, chosen: Sequence[int], at: At, names: tuple[str, ...] | None, *, limit: int | None,
        allowance: Allowance | None, may_be_empty: bool = False, first: int = 0,
    ) -> Rows:  # fmt: skip
        """The first `limit` of the chosen rows of a table that can be used; at says where a row of it stands."""
        import pyarrow as pa

        task, there = self.task, table.column_names
        table = table.take(pa.array(chosen, pa.int64())) if len(chosen) < len(table) else table
        # where one is missing, every column of the file is named, not only those that the spec knows
        columns = task.source_columns if set(task.source_columns) <= set(there) else ()
        raw = {column: column_values(table, column, lambda row: at(chosen[row])) for column in columns}
        return canonical_rows(
            task, self.lang, self.split, raw or {column: [] for column in there}, identity=self.identity,
            place=self.place, at=lambda row: at(chosen[row]), label_names=names, limit=limit, may_be_empty=may_be_empty,
            allowance=allowance, first=first,
        )  # fmt: skip


def count_rows(files: Sequence[Path]) -> int:
    """How many rows some files have, by what stands at their ends; raises UserError for what is no Parquet file."""
    total = 0
    for file in files:
        with opened(file) as parquet:
            total += parquet.metadata.num_rows
    return total


def read_table(file: Path) -> Any:
    """A Parquet file as an Arrow table; UserError if it is none, or has two columns of one name."""
    with opened(file) as parquet:
        table = parquet.read()
    check_names(file, table.column_names)
    return table


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """An open `ParquetFile`; UserError for what cannot be opened, or read while it is open."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # with a buffer, a column of a row group is not held whole while its rows are read in batches
        with pq.ParquetFile(file, buffer_size=BUFFER) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a readable Parquet file ({_first_line(error)}); fetch it again") from error


def check_names(file: Path, names: Sequence[str]) -> None:
    """UserError for two columns of one name."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{file} has two columns of the name '{twice[0]}'; rename or remove one")


def column_values(table: Any, column: str, at: At) -> list[Any]:
    """A column's values as Python's; UserError at the row of one that has none, such as text that is not UTF-8."""
    values = table.column(column)
    try:
        return list(values.to_pylist())
    except (ValueError, ArithmeticError):  # undecodable bytes; dates that Python does not have
        for row, value in enumerate(values):
            try:
                value.as_py()
            except (ValueError, ArithmeticError) as error:
                raise UserError(f"{at(row)}, column '{column}': {_first_line(error)}; correct or remove it") from error
        raise


def _tables(files: Sequence[Path], limit: int | None) -> list[Any]:
    tables, left = [], limit
    for file in files:
        table = read_table(file)
        tables.append(table if left is None else table.slice(0, left))
        left = None if left is None else left - len(tables[-1])
        if left == 0:
            break
    return tables


def _located(files: Sequence[Path], sizes: Sequence[int]) -> At:
    """Where a row of the files together stands: its file, and its number there."""

    starts = [0, *accumulate(sizes)]

    def at(row: int) -> str:
        file = bisect_right(starts, row) - 1
        return f"{files[file]}, row {row - starts[file]}"

    return at


def of_language(table: Any, id_prefix: str, place: str, at: At) -> Sequence[int]:
    """The numbers of a table's rows whose id begins so."""
    if not id_prefix:
        return range(len(table))
    if "id" not in table.column_names:
        raise unknown("column", "id", table.column_names, place=f"{place}, which tells languages by it")
    ids = checked_texts(column_values(table, "id", at), "id", at)
    return [row for row, name in enumerate(ids) if name.startswith(id_prefix)]


def label_names(schema: Any, task: Task, place: str) -> tuple[str, ...] | None:
    """The names behind integer labels, from the features that `datasets` stores in a file.

    Read off the JSON itself, whatever type the other columns have; None where the file tells nothing about the column.
    """
    column = task.columns.get("label") or task.columns.get("tags")
    stored = (schema.metadata or {}).get(b"huggingface")
    if not column or stored is None:
        return None
    try:
        feature = (json.loads(stored).get("info", {}).get("features") or {}).get(column)
        while isinstance(feature, list) or (
            feature and "feature" in feature
        ):  # a list of labels, as two versions say it
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        names = feature["names"] if feature and feature.get("_type") == "ClassLabel" else None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise UserError(
            f"{place}: the label names stored with column '{column}' cannot be read; store it anew"
        ) from error
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError(
            f"{place}: the label names stored with column '{column}' are no texts: {short(names)}; store it anew"
        )
    return None if names is None else tuple(names)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]

"""A split read piece by piece, so that memory does not grow with its rows."""

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from xadapt.data.checks import At
from xadapt.data.defects import Allowance
from xadapt.data.parquet import ParquetRows, check_names, count_rows, label_names, of_language, opened
from xadapt.data.rows import Rows
from xadapt.data.splits import Share, stand_in
from xadapt.tasks import Task
from xadapt.tasks.spec import Part, Split


def read_pieces(
    task: Task, lang: str, split: Split, part: Part, files: Sequence[Path], *, identity: str, limit: int | None,
    size: int, share: Share, id_prefix: str, load: Callable[[], Rows],
) -> Iterator[Rows]:  # fmt: skip
    """What `load` gives, in runs of at most `size` rows, each read when it is asked for.

    Text files, several data sets together, mining and labels taken from the rows are loaded and cut. Raises UserError
    as `load` does, for a row of Parquet when it is reached; where more rows than may be have a defect, when the last of
    them is. What only all rows together show, that there are none or that an id stands twice, is noticed at the end and
    left to `load` to say.
    """
    import numpy as np

    if files[0].suffix != ".parquet" or len(task.parts_in(lang)) > 1 or task.format == "mining" or task.open_labels:
        yield from load().pieces(size)
        return
    stands, ids, rows = stand_in([(part, share)], split), array("q"), None
    for rows in _pieces(ParquetRows(task, lang, split, identity, files), limit, size, share, id_prefix):
        ids.extend(map(hash, rows.columns.get("id", ())))
        yield replace(rows, stand_in=stands)
    # hashes take 8 bytes each; where two ids share one, `load` finds nothing wrong
    if rows is None or len(np.unique(np.frombuffer(ids, np.int64))) < len(ids):
        load()


def _pieces(into: ParquetRows, limit: int | None, size: int, share: Share, id_prefix: str) -> Iterator[Rows]:
    """Pieces with rows; what was skipped behind the last one counts with it, so that one is always held back."""
    start, stop = _bounds(into, share, id_prefix, size) if share.suffix else (0, sys.maxsize)
    allowance = Allowance(into.task, lambda: len(range(*_bounds(into, share, id_prefix, size))))
    with opened(into.files[0]) as parquet:
        names = label_names(parquet.schema_arrow, into.task, str(into.files[0]))
    seen, held, skipped = 0, None, 0
    for table, at in _batches(into, size):
        mine = of_language(table, id_prefix, into.place, at)
        chosen = mine[max(0, start - seen) : max(0, stop - seen)]
        seen += len(mine)
        first = max(0, seen - len(mine) - start)
        rows = into.rows(table, chosen, at, names, limit=limit, allowance=allowance, may_be_empty=True, first=first)
        if not len(rows):
            skipped += rows.skipped
            continue
        if held:
            yield held
        held = replace(rows, skipped=skipped + rows.skipped)
        # under a limit, what is skipped behind the last row of a piece counts if another row follows
        skipped = len(chosen) - len(rows) - rows.skipped
        limit = None if limit is None else limit - len(rows)
        if limit == 0 or seen >= stop:
            break
    if held:
        yield held if limit is not None else replace(held, skipped=held.skipped + skipped)


def _bounds(into: ParquetRows, share: Share, id_prefix: str, size: int) -> tuple[int, int]:
    """First and last row (exclusive) of a share among those of the language."""
    if not id_prefix:
        return share.bounds(count_rows(into.files))
    batches = _batches(into, size)
    return share.bounds(sum(len(of_language(table, id_prefix, into.place, at)) for table, at in batches))


def _batches(into: ParquetRows, size: int) -> Iterator[tuple[Any, At]]:
    """The files' rows as tables of at most `size`, with where a row of each stands."""
    import pyarrow as pa

    first = None
    for file in into.files:
        with opened(file) as parquet:
            schema = parquet.schema_arrow
            check_names(file, schema.names)
            first = first or schema
            into.check_one_table([first, schema])
            start = 0
            wanted = {"id", *into.task.source_columns}
            # where one is missing, every column of the file is named
            columns = (
                [c for c in schema.names if c in wanted] if set(into.task.source_columns) <= set(schema.names) else None
            )
            # Arrow's allocator keeps for every thread what that has freed
            for batch in parquet.iter_batches(batch_size=size, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch]), partial(_row_of, file, start)
                start += len(batch)
                pa.default_memory_pool().release_unused()


def _row_of(file: Path, start: int, row: int) -> str:
    return f"{file}, row {start + row}"

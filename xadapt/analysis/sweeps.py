"""What a sweep found: a table a target, with the ways to adapt as rows and the points of the sweep as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xadapt.analysis.table import Cell, Column, Line, Row, Table

EXPLAINED = "one column a point of the sweep; in brackets: gain over none of the same regime and point"


@dataclass(frozen=True)
class Sweep:
    """A study whose recipe sweeps keys that no row shows: the setting of each point, by the values that tell it."""

    study: str
    keys: tuple[str, ...]
    settings: Mapping[str, Sequence[str]]

    @property
    def name(self) -> str:
        """For people: the keys, and whose they are."""
        return f"{' · '.join(self.keys)} ({self.study})"


def sweep_tables(sweep: Sweep, overall: Mapping[str, Table]) -> list[Table]:
    """A table a target and one of their mean, out of the overall tables of the sweep's settings, by setting.

    Points without any score have no column. A table's setting is the sweep's name and the target.
    """
    found_of = {
        label: [overall[one] for one in settings if one in overall] for label, settings in sweep.settings.items()
    }
    columns = {label: tables for label, tables in found_of.items() if tables}
    if len(columns) < 2:
        return []
    targets = list(
        dict.fromkeys(
            c.name for tables in columns.values() for table in tables for c in table.columns if c.n is not None
        )
    )
    rows = list(dict.fromkeys(line.row for tables in columns.values() for table in tables for line in table.lines))
    found = []
    for target in targets:
        lines = [Line(row, "", tuple(_first(tables, row, target) for tables in columns.values())) for row in rows]
        found.append(Table(f"{sweep.name}: {target}", "", tuple(map(Column, columns)), _with_any(lines)))
    return [table for table in found if table.lines]


def _with_any(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(line for line in lines if any(line.cells))


def _first(tables: Sequence[Table], row: Row, target: str) -> Cell | None:
    """The cell of the one of a point's settings that has it."""
    return next((cell for table in tables if (cell := _cell(table, row, target))), None)


def _cell(table: Table, row: Row, target: str) -> Cell | None:
    """A row's cell in a column, the mean's with the gain that stands beside it."""
    found = next((line.cells for line in table.lines if line.row == row), ())
    cells = {column.name: cell for column, cell in zip(table.columns, found, strict=False)}
    cell = cells.get(target)
    return replace(cell, gain=cells.get("gain")) if cell and target == "mean" else cell

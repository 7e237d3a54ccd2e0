"""The best single intermediate task beside the compositions of several, which have to beat it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from xadapt.analysis.table import Cell, Note, Row

BEST = "best single"
_SINGLE, _JOINT = ("continue", "stack"), ("fusion", "average", "multitask")
Cells = Mapping[str, Cell | None]


def with_best_singles(rows: Sequence[Row], cells: Mapping[Row, Cells]) -> dict[Row, Cells]:
    """The cells of every row, and before a regime's first joint composition a line of its best singles.

    The best is chosen for each task by the score that is shown, so that it is an upper bound of what choosing on dev
    gives; a note says which it is. A regime without both kinds of rows has no such line.
    """
    found: dict[Row, Cells] = {}
    for row in rows:
        best = Row(row.regime, BEST, "")
        if row.composition in _JOINT and best not in found:
            singles = [r for r in rows if r.regime == row.regime and r.composition in _SINGLE and not r.split]
            if singles:
                found[best] = {task: _best(task, singles, cells) for task in cells[row]}
        found[row] = cells[row]
    return found


def _best(task: str, singles: Sequence[Row], cells: Mapping[Row, Cells]) -> Cell | None:
    there = [(cell.value, -at, row, cell) for at, row in enumerate(singles) if (cell := cells[row].get(task))]
    if not there:
        return None
    _, _, row, cell = max(there, key=lambda item: item[:2])
    text = f"{task}: {row.composition} {row.intermediate} is the best of {len(there)} by this very score ({row.regime})"
    return replace(cell, notes=tuple(sorted({*cell.notes, Note("◊", text)})))

"""The best single intermediate task beside the compositions of several, which have to beat it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from xadapt.analysis.table import Cell, Note, Row

BEST = "best single"
_SINGLE, _JOINT = ("continue", "stack"), ("fusion", "average", "multitask")
Cells = Mapping[str, Cell | None]


def with_best_singles(cells: Mapping[Row, Cells], basis: Mapping[tuple[Row, str], str]) -> dict[Row, Cells]:
    """The cells of every row, and before a regime's first joint composition a line of its best singles.

    The best is chosen for each task by the score that is shown, so that it is an upper bound of what choosing on dev
    gives; a note says which it is. Only singles of the joint row's basis are compared, the same for cells that differ in
    their composition alone: where joint rows have several, each has a line of its own. A regime without both kinds of
    rows has no such line.
    """
    found: dict[Row, Cells] = {}
    shared, told = _shared(cells, basis), list[dict[str, str]]()
    for row in cells:
        if (bases := shared.get(row)) is not None and not any(bases is other for other in told):
            told.append(bases)
            several = any(other.regime == row.regime and of is not bases for other, of in shared.items())
            line = {task: _best(task, _singles(row.regime, task, bases, cells, basis), cells) for task in cells[row]}
            if any(line.values()):
                found[Row(row.regime, BEST, "", row.variant if several else "")] = line
        found[row] = cells[row]
    return found


def _shared(cells: Mapping[Row, Cells], basis: Mapping[tuple[Row, str], str]) -> dict[Row, dict[str, str]]:
    """The bases of the joint rows, by task: one object for those of a regime that no task contradicts."""
    found: dict[Row, dict[str, str]] = {}
    for row in (row for row in cells if row.composition in _JOINT):
        own = {task: basis[row, task] for task in cells[row] if (row, task) in basis}
        known = [bases for other, bases in found.items() if other.regime == row.regime]
        bases = next((of for of in known if all(of.get(task, own[task]) == own[task] for task in own)), {})
        bases |= own
        found[row] = bases
    return found


def _singles(
    regime: str, task: str, bases: Mapping[str, str], cells: Mapping[Row, Cells], basis: Mapping[tuple[Row, str], str]
) -> list[Row]:
    """The rows of one intermediate task that differ from the joint ones, on a task, in the composition alone."""
    of_regime = [row for row in cells if row.regime == regime and row.composition in _SINGLE]
    return [row for row in of_regime if basis.get((row, task)) == bases.get(task)]


def _best(task: str, singles: Sequence[Row], cells: Mapping[Row, Cells]) -> Cell | None:
    there = [(cell.value, -at, row, cell) for at, row in enumerate(singles) if (cell := cells[row].get(task))]
    if not there:
        return None
    _, _, row, cell = max(there, key=lambda item: item[:2])
    text = f"{task}: {row.composition} {row.intermediate} is the best of {len(there)} by this very score ({row.regime})"
    return replace(cell, notes=tuple(sorted({*cell.notes, Note("◊", text)})))

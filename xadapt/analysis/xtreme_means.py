"""XTREME's group means and its overall mean, as columns of the overall table."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from xadapt.analysis.cells import mean_of_cells
from xadapt.analysis.table import Cell, Column, Note
from xadapt.tasks import TASKS
from xadapt.tasks.scoring import XTREME_GROUPS, score_metrics

_NINE = tuple(task for tasks in XTREME_GROUPS.values() for task in tasks)


@dataclass(frozen=True)
class TaskMean:
    """A column that averages tasks, and what stands at its numbers."""

    column: Column
    tasks: tuple[str, ...]
    notes: tuple[Note, ...]

    def cell(self, cells: Mapping[str, Cell | None]) -> Cell | None:
        """The plain mean of the tasks' cells, with that of their gains; None where one is missing."""
        found = [cells.get(task) for task in self.tasks]
        mean = mean_of_cells(found)
        gain = mean_of_cells([cell.gain if cell else None for cell in found])
        return replace(mean, gain=gain, notes=tuple(sorted({*mean.notes, *self.notes}))) if mean else None


def xtreme_means(codes: Mapping[str, Collection[str]], metrics: Mapping[str, tuple[str, ...]]) -> list[TaskMean]:
    """The groups, and the nine tasks together, of which every task is there and scored by XTREME's metrics.

    codes are the languages of each task, metrics what its score is made of. A mean is marked if one of its tasks has
    fewer languages than XTREME's. Source: Hu et al. 2020.
    """
    scored = [
        task for task in _NINE if metrics.get(task) == score_metrics(TASKS[task].main_metric, TASKS[task].metrics)
    ]
    wanted = [
        (Column(group, len(tasks), f"mean of {', '.join(tasks)}"), tasks) for group, tasks in XTREME_GROUPS.items()
    ]
    wanted.append((Column("XTREME overall", len(_NINE), "mean of the nine tasks"), _NINE))
    whole = [(column, tasks) for column, tasks in wanted if set(tasks) <= set(scored)]
    shares = {
        task: f"{task} {len(codes[task])} of {len(TASKS[task].languages)}"
        for task in scored
        if any(task in tasks for _, tasks in whole) and set(TASKS[task].languages) - set(codes[task])
    }
    fewer = Note("*", f"over fewer languages than XTREME's: {', '.join(shares.values())}")
    return [TaskMean(column, tasks, (fewer,) if shares.keys() & set(tasks) else ()) for column, tasks in whole]

"""Scores as tables: rows are ways to adapt, columns are targets, language families or languages."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from xadapt.analysis.attention import AttentionRecord
from xadapt.analysis.best_single import BEST, with_best_singles
from xadapt.analysis.cells import Grid, combined, gain_cell, mean_cell, mean_of_cells
from xadapt.analysis.costs import Cost, cost_grid
from xadapt.analysis.export import write_csv, write_parquet
from xadapt.analysis.records import Score
from xadapt.analysis.sweeps import Sweep, sweep_tables
from xadapt.analysis.table import Cell, Column, Line, Row, Table
from xadapt.analysis.xtreme_means import TaskMean, xtreme_means
from xadapt.errors import UserError, unknown
from xadapt.languages import LANGUAGES, english_first
from xadapt.tasks import TASKS, target_names
from xadapt.tasks.scoring import score_metrics, score_name

REGIMES = ("full", "adapter", "lora")
COMPOSITIONS = ("none", "continue", "stack", BEST, "fusion", "average", "multitask")


class Scorecard:
    """Tidy scores, grouped once, read as tables; settings and variants of a row are never mixed.

    Raises UserError for a value that is no number, two results for one cell, or two main metrics of a task.
    """

    def __init__(
        self, scores: Sequence[Score], costs: Sequence[Cost] = (), attention: Sequence[AttentionRecord] = (),
        sweeps: Sequence[Sweep] = (),
    ) -> None:  # fmt: skip
        self.scores, self._costs, self._sweeps = tuple(scores), tuple(costs), tuple(sweeps)
        self._grids: dict[tuple[str, Row, str, str], Grid] = {}
        self._main = _main_metrics(self.scores)
        self._family: dict[str, str] = {}
        self._basis: dict[tuple[str, Row, str], str] = {}
        self._none: dict[tuple[str, str, str, str], Grid] = {}  # by setting, regime, basis and metric
        for score in self.scores:
            row = Row(score.regime, score.composition, score.intermediate, score.variant)
            _place(self._grids.setdefault((score.setting, row, score.task, score.metric), {}), score)
            self._basis[score.setting, row, score.task] = basis = score.basis or score.task
            if row.composition == "none":
                grid = self._none.setdefault((score.setting, row.regime, basis, score.metric), {})
                grid.setdefault(score.language, {})[score.seed] = score
            self._family.setdefault(score.language, score.family)
        self.attention = tuple(attention)

    def settings(self) -> list[str]:
        """The settings, in the order of their first record."""
        return list(dict.fromkeys(score.setting for score in self.scores))

    def rows(self, setting: str) -> list[Row]:
        """The rows of a setting: full before adapter before lora, none before the other compositions."""
        if setting not in self.settings():
            raise unknown("setting", setting, self.settings(), place="the scorecard")
        return sorted({key[1] for key in self._grids if key[0] == setting}, key=_row_order)

    def tasks(self, setting: str) -> list[str]:
        """The tasks scored in a setting: targets as in the catalogue, then others by name."""
        known = target_names()
        return sorted({key[2] for key in self._grids if key[0] == setting}, key=lambda name: _rank(known, name))

    def metrics(self, setting: str, task: str) -> list[str]:
        """The metrics of a task, the main one first; raises UserError for a task without scores."""
        if task not in self.tasks(setting):
            raise unknown("task", task, self.tasks(setting), place=f"the scorecard's setting '{setting}'")
        order = [self._main.get(task, ""), *(TASKS[task].metrics if task in TASKS else ())]
        found = {key[3] for key in self._grids if (key[0], key[2]) == (setting, task)}
        return sorted(found, key=lambda name: _rank(order, name))

    def codes(self, setting: str, task: str) -> list[str]:
        """The languages any row of a task has, English first."""
        grids = [grid for key, grid in self._grids.items() if (key[0], key[2]) == (setting, task)]
        return english_first(list({code for grid in grids for code in grid}))

    def overall(self, setting: str) -> Table:
        """Rows by targets: plain means over languages of the tasks' scores, XTREME's means of them, mean and gain.

        English counts where a task has it. A group's mean, and XTREME's overall one, has a column if a row has all
        of its tasks, and is marked if one of them has fewer languages than XTREME's. The mean is over the tasks
        every row has, its column's detail names them; its gain is over none with the same numbers. Before a regime's
        joint compositions stands its best single intermediate task.
        """
        rows, tasks = self.rows(setting), self.tasks(setting)
        codes = {task: self.codes(setting, task) for task in tasks}
        metrics = {task: self._score_metrics(setting, task) for task in tasks}
        own = {row: {t: self._cell(setting, row, t, metrics[t], codes[t]) for t in tasks} for row in rows}
        cells = with_best_singles(
            own, {(r, task): found for (s, r, task), found in self._basis.items() if s == setting}
        )
        common = [task for task in tasks if all(cells[row][task] for row in rows)]
        over = f"over {', '.join(common)}" if common else "no task is present in every row"
        columns = [Column(task, len(codes[task]), score_name(metrics[task])) for task in tasks]
        means = [mean for mean in xtreme_means(codes, metrics) if any(map(mean.cell, cells.values()))]
        columns += [mean.column for mean in means]
        columns += [Column("mean", len(common), over), Column("gain", None, "over none of the same regime and numbers")]
        lines = tuple(_overall_line(row, found, means, common) for row, found in cells.items())
        return Table(setting, "", tuple(columns), lines)

    def costs(self, setting: str) -> list[list[str]]:
        """A header and what each row of a setting cost, in its order, as text; empty if nothing is known."""
        found: dict[Row, list[Cost]] = {row: [] for row in self.rows(setting)}
        for cost in self._costs:
            row = Row(cost.regime, cost.composition, cost.intermediate, cost.variant)
            if cost.setting == setting and row in found:
                found[row].append(cost)
        return cost_grid({row: costs for row, costs in found.items() if costs})

    def sweeps(self) -> list[Table]:
        """For each sweep a table a target, its points as columns and the score of each as the overall tables have it."""
        wanted = {setting for sweep in self._sweeps for settings in sweep.settings.values() for setting in settings}
        overall = {setting: self.overall(setting) for setting in self.settings() if setting in wanted}
        return [table for sweep in self._sweeps for table in sweep_tables(sweep, overall)]

    def families(self, setting: str, task: str) -> Table:
        """Rows by language families, largest first, in every metric of a task.

        English, the language of training, has a column of its own and is in no family; `mean` counts it and
        `mean without en` is the zero-shot mean. Tasks without English have neither of the two extra columns.
        """
        codes = self.codes(setting, task)
        others = [code for code in codes if code != "en"]
        groups = [(Column("mean", len(codes)), codes)]
        if others != codes:
            groups += [(Column("mean without en", len(others)), others), (Column("en", 1), ["en"])]
        by_family: dict[str, list[str]] = {}
        for code in others:
            by_family.setdefault(self._family[code] or "no family", []).append(code)
        for name, members in sorted(by_family.items(), key=lambda item: (-len(item[1]), item[0])):
            groups.append((Column(name, len(members), " ".join(members), name), members))
        return self._table(setting, task, groups)

    def languages(self, setting: str, task: str) -> Table:
        """Rows by languages, English first, in every metric of a task."""
        return self._table(setting, task, [(self._language(c), [c]) for c in self.codes(setting, task)])

    def to_json(self) -> str:
        """Every table of every setting and every record, as one JSON object in ASCII."""
        tables = [asdict(table) for table in self.tables()]
        records = [score.model_dump() for score in self.scores]
        return json.dumps({"format": 1, "tables": tables, "scores": records}, indent=1)

    def tables(self) -> list[Table]:
        """Of every setting: the overall table, then each task's families and languages."""
        found: list[Table] = []
        for setting in self.settings():
            found.append(self.overall(setting))
            for task in self.tasks(setting):
                found += [self.families(setting, task), self.languages(setting, task)]
        return found

    def write_csv(self, path: Path | str) -> None:
        """Write the records as CSV, atomically; text a spreadsheet would run gets a leading apostrophe."""
        write_csv(self.scores, path)

    def write_parquet(self, path: Path | str) -> None:
        """Write the records as Parquet, one typed column a field, atomically."""
        write_parquet(self.scores, path)

    def _language(self, code: str) -> Column:
        name = LANGUAGES[code].name if code in LANGUAGES else code
        return Column(code, None, name, self._family[code] or "no family")

    def _table(self, setting: str, task: str, groups: Sequence[tuple[Column, list[str]]]) -> Table:
        lines = []
        for metric in self.metrics(setting, task):
            for row in self.rows(setting):
                if (setting, row, task, metric) in self._grids:
                    cells = (self._cell(setting, row, task, (metric,), codes) for _, codes in groups)
                    lines.append(Line(row, metric, tuple(cells)))
        return Table(setting, task, tuple(column for column, _ in groups), tuple(lines))

    def _score_metrics(self, setting: str, task: str) -> tuple[str, ...]:
        return score_metrics(self._main.get(task, ""), self.metrics(setting, task))

    def _grid(self, setting: str, row: Row, task: str, metrics: Sequence[str]) -> Grid:
        return combined([self._grids.get((setting, row, task, metric), {}) for metric in metrics])

    def _cell(self, setting: str, row: Row, task: str, metrics: Sequence[str], codes: Sequence[str]) -> Cell | None:
        """The mean over the languages of the mean of the metrics, with its gain."""
        grid = self._grid(setting, row, task, metrics)
        cell = mean_cell(grid, codes)
        if cell is None or row.composition == "none":
            return cell
        basis = self._basis[setting, row, task]
        none = combined([self._none.get((setting, row.regime, basis, metric), {}) for metric in metrics])
        return replace(cell, gain=gain_cell(grid, none, codes))


def _rank(order: Sequence[str], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _row_order(row: Row) -> tuple[tuple[int, str], tuple[int, str], str, str]:
    return (_rank(REGIMES, row.regime), _rank(COMPOSITIONS, row.composition), row.intermediate, row.variant)


def _main_metrics(scores: Iterable[Score]) -> dict[str, str]:
    main: dict[str, str] = {}
    for score in scores:
        if score.main and main.setdefault(score.task, score.metric) != score.metric:
            names = f"'{main[score.task]}' and '{score.metric}'"
            raise UserError(f"task '{score.task}' has two main metrics, {names}: keep one task version's records")
    return main


def _place(grid: Grid, score: Score) -> None:
    cell = f"{score.task}, {score.language}, {score.metric}, seed {score.seed}, {score.regime} {score.composition} {score.intermediate}"
    if not math.isfinite(score.value):
        raise UserError(f"the score of {cell} is {score.value}: evaluate it again")
    earlier = grid.setdefault(score.language, {}).setdefault(score.seed, score)
    if (earlier.value, earlier.stage) != (score.value, score.stage):
        raise UserError(
            f"two results, {earlier.value} of {earlier.stage[:16]} and {score.value} of {score.stage[:16]}, for {cell}: "
            "keep one record"
        )


def _overall_line(row: Row, cells: Mapping[str, Cell | None], means: Iterable[TaskMean], common: Sequence[str]) -> Line:
    chosen = [cells[task] for task in common]
    gain = mean_of_cells([cell.gain if cell else None for cell in chosen])
    return Line(row, "", (*cells.values(), *(mean.cell(cells) for mean in means), mean_of_cells(chosen), gain))

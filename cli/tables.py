"""The scorecard in the terminal: rich tables where they fit, plain aligned lines where they do not, all of one kind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from xadapt.analysis.attention import EXPLAINED as ATTENTION_EXPLAINED
from xadapt.analysis.attention import attention_grid
from xadapt.analysis.costs import EXPLAINED
from xadapt.analysis.export import visible
from xadapt.analysis.scorecard import Scorecard
from xadapt.analysis.sweeps import EXPLAINED as SWEEP_EXPLAINED
from xadapt.analysis.table import MISSING, Cell, Line, Table

PLAIN_WIDTH = 100
Grid = list[list[str]]  # the header, then one list of strings a line
Shape = Literal["drawn", "plain", "turned", "blocks"]
By = Literal["family", "language"]


def render_scorecard(scorecard: Scorecard, console: Console, *, by: By = "family") -> None:
    """Print every setting: the overall table, each target by family or language (a table a metric), the footnotes.

    All tables keep one orientation. A terminal that is wide enough gets rich tables; any other output gets aligned
    lines. No number is ever cut, and no text of the data is read as markup.
    """
    if not scorecard.settings():
        _line(console, "no scores")
    parts = list(_parts(scorecard, by))
    shape = common_shape([part.grid for part in parts if part.grid], console)
    for part in parts:
        if part.grid:
            render_grid(part.grid, part.text, console, shape=shape)
        else:
            _line(console, part.text, style=part.style)


def common_shape(grids: Sequence[Grid], console: Console) -> Shape:
    """How tables of one output are laid out: drawn or as they are, else turned, where all fit so; else in blocks."""
    limit = console.width if console.is_terminal else PLAIN_WIDTH
    if console.is_terminal and all(_drawn_width(grid, console) <= limit for grid in grids):
        return "drawn"
    if all(_width(grid) <= limit for grid in grids):
        return "plain"
    return "turned" if all(_width(_turned(grid)) <= limit for grid in grids) else "blocks"


def render_grid(grid: Grid, caption: str, console: Console, *, shape: Shape | None = None) -> None:
    """Print a header and its lines, all of strings, under a caption, in a shape that other tables have too, or its own."""
    _line(console, "")
    _line(console, caption, style="bold")
    shape = shape or common_shape([grid], console)
    if shape == "drawn":
        console.print(_rich(grid))
        return
    limit = console.width if console.is_terminal else PLAIN_WIDTH
    blocks = _blocks(grid, limit) if shape == "blocks" else [_turned(grid) if shape == "turned" else grid]
    for number, block in enumerate(blocks):
        for text in ([""] if number else []) + _aligned(block):
            _line(console, text)


@dataclass(frozen=True)
class _Part:
    """A line of the output, or a table under its caption."""

    text: str
    grid: Grid | None = None
    style: str = ""


def _parts(scorecard: Scorecard, by: By) -> Iterator[_Part]:
    for setting in scorecard.settings():
        yield _Part(f"setting: {visible(setting)}", style="bold")
        overall = scorecard.overall(setting)
        yield _Part("overall: task scores, points, means over languages", _grid(overall.lines, overall))
        yield from _captions(overall)
        if costs := scorecard.costs(setting):
            yield _Part("cost", [[visible(text) for text in line] for line in costs])
            yield _Part(EXPLAINED, style="dim")
        if attention := attention_grid(scorecard.attention, setting):
            yield _Part("attention of fusions, percent", [[visible(text) for text in line] for line in attention])
            yield _Part(ATTENTION_EXPLAINED, style="dim")
        for task in scorecard.tasks(setting):
            table = scorecard.languages(setting, task) if by == "language" else scorecard.families(setting, task)
            for metric, lines in groupby(table.lines, key=lambda line: line.metric):
                yield _Part(f"{visible(task)} {visible(metric)} by {by}, points", _grid(tuple(lines), table))
            yield from _captions(table, details=by == "family")
        yield _Part("")
    for table in scorecard.sweeps():
        yield _Part(f"sweep over {visible(table.setting)}, points", _grid(table.lines, table))
        yield from _captions(table, meaning=SWEEP_EXPLAINED)


def _captions(table: Table, *, meaning: str = "", details: bool = True) -> Iterator[_Part]:
    """Say what the columns and the marks mean, a line each."""
    columns = [column for column in table.columns if column.detail and (column.family or not table.task)]
    named = "; ".join(f"{visible(column.name)}: {visible(column.detail)}" for column in columns if details)
    counted = "n: number of languages" if details else ""
    meaning = meaning or (counted if table.task else "in brackets: gain of that column")
    seeds = "seeds: how many a line averages" if table.several_seeds else ""
    said = "; ".join(filter(None, (meaning, seeds)))
    for text in (said, named, *(f"{note.mark} {note.text}" for note in table.footnotes)):
        if text:
            yield _Part(visible(text), style="dim")


def _grid(lines: Sequence[Line], table: Table) -> Grid:
    """The lines as strings: label and seeds (where there are several), then the columns."""
    seeds = table.several_seeds
    grid = [["", *["seeds"] * seeds, *(visible(column.label) for column in table.columns)]]
    for line in lines:
        texts = _texts(line, gains=not table.task)
        grid.append([visible(line.row.label), *[line.seeds] * seeds, *texts])
    return grid


def _texts(line: Line, *, gains: bool) -> list[str]:
    return [MISSING if cell is None else _text(cell, gains=gains) for cell in line.cells]


def _text(cell: Cell, *, gains: bool) -> str:
    gain = cell.shown_gain if gains else None
    return f"{cell.text} ({' '.join(filter(None, (gain.number, gain.deviation)))})" if gain else cell.text


def _rich(grid: Grid) -> RichTable:
    """A rich table of plain texts, so that nothing in the data is markup."""
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(grid[0]):
        table.add_column(Text(_stacked(name)), justify="right" if number else "left", no_wrap=True)
    for texts in grid[1:]:
        table.add_row(*map(Text, texts))
    return table


def _stacked(label: str) -> str:
    """A header with its n on a second line, which keeps columns narrow."""
    name, bracket, n = label.rpartition(" (n=")
    return f"{name}\nn={n[:-1]}" if bracket else label


def _turned(grid: Grid) -> Grid:
    return [list(column) for column in zip(*grid, strict=True)]


def _drawn_width(grid: Grid, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), _rich(grid)).maximum


def _blocks(grid: Grid, limit: int) -> Iterator[Grid]:
    """The grid cut between columns into blocks within the limit, each with the first column and one more."""
    start, columns = 1, len(grid[0])
    while start < columns:
        end = start + 1
        while end < columns and _width(_part(grid, start, end + 1)) <= limit:
            end += 1
        yield _part(grid, start, end)
        start = end


def _part(grid: Grid, start: int, end: int) -> Grid:
    return [[texts[0], *texts[start:end]] for texts in grid]


def _widths(grid: Grid) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*grid, strict=True)]


def _width(grid: Grid) -> int:
    return sum(_widths(grid)) + 2 * (len(grid[0]) - 1)


def _aligned(grid: Grid) -> list[str]:
    """The first column to the left, the others to the right, two spaces between."""
    widths = _widths(grid)
    return ["  ".join(_padded(texts, widths)).rstrip() for texts in grid]


def _padded(texts: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for number, (text, width) in enumerate(zip(texts, widths, strict=True)):
        space = " " * (width - cell_len(text))
        yield space + text if number else text + space


def _line(console: Console, text: str, *, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)

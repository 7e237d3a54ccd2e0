"""The scorecard in the terminal: rich tables where they fit, plain aligned lines where they do not."""

from collections.abc import Iterator, Sequence
from itertools import groupby

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


def render_scorecard(scorecard: Scorecard, console: Console) -> None:
    """Print every setting: the overall table, each target's families (a table a metric), the footnotes.

    A terminal that is wide enough gets rich tables; any other output gets aligned lines, with families as
    lines where they do not fit as columns. No number is ever cut, and no text of the data is read as markup.
    """
    if not scorecard.settings():
        _line(console, "no scores")
    for setting in scorecard.settings():
        _line(console, f"setting: {visible(setting)}", style="bold")
        overall = scorecard.overall(setting)
        render_grid(_grid(overall.lines, overall), "overall: task scores, points, means over languages", console)
        _captions(overall, console)
        if costs := scorecard.costs(setting):
            render_grid([[visible(text) for text in line] for line in costs], "cost", console)
            _line(console, EXPLAINED, style="dim")
        if attention := attention_grid(scorecard.attention, setting):
            render_grid(
                [[visible(text) for text in line] for line in attention], "attention of fusions, percent", console
            )
            _line(console, ATTENTION_EXPLAINED, style="dim")
        for task in scorecard.tasks(setting):
            families = scorecard.families(setting, task)
            for metric, lines in groupby(families.lines, key=lambda line: line.metric):
                render_grid(
                    _grid(tuple(lines), families), f"{visible(task)} {visible(metric)} by family, points", console
                )
            _captions(families, console)
        _line(console, "")
    for table in scorecard.sweeps():
        render_grid(_grid(table.lines, table), f"sweep over {visible(table.setting)}, points", console)
        _captions(table, console, meaning=SWEEP_EXPLAINED)


def render_grid(grid: Grid, caption: str, console: Console) -> None:
    """Print a header and its lines, all of strings, under a caption: a rich table where it fits, else aligned lines."""
    _line(console, "")
    _line(console, caption, style="bold")
    drawn = _rich(grid)
    width = Measurement.get(console, console.options.update(max_width=10_000), drawn).maximum
    if console.is_terminal and width <= console.width:
        console.print(drawn)
    else:
        for text in _plain(grid, console.width if console.is_terminal else PLAIN_WIDTH):
            _line(console, text)


def _captions(table: Table, console: Console, *, meaning: str = "") -> None:
    """Say what the columns and the marks mean, a line each."""
    columns = [column for column in table.columns if column.detail and (column.family or not table.task)]
    details = "; ".join(f"{visible(column.name)}: {visible(column.detail)}" for column in columns)
    meaning = meaning or ("n: number of languages" if table.task else "in brackets: gain of that column")
    seeds = "; seeds: how many a line averages" if table.several_seeds else ""
    for text in (meaning + seeds, details, *(f"{note.mark} {note.text}" for note in table.footnotes)):
        if text:
            _line(console, visible(text), style="dim")


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


def _plain(grid: Grid, limit: int) -> list[str]:
    """Aligned lines within the limit: as they are, turned, or turned with the rows numbered, in blocks."""
    turned = [list(column) for column in zip(*grid, strict=True)]
    for candidate in (grid, turned):
        if _width(candidate) <= limit:
            return _aligned(candidate)
    numbers = [f"({number})" for number in range(1, len(grid))]
    lines = [f"{number} {texts[0]}" for number, texts in zip(numbers, grid[1:], strict=True)]
    for block in _blocks([["", *numbers], *turned[1:]], limit):
        lines += ["", *_aligned(block)]
    return lines


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

"""The table of what runs, on a terminal: a row a stage with its progress and time left, and how many there are of each."""

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xadapt_cli.pace import Pace, clock, counted

ROWS = 15


@dataclass
class Row:
    """A running stage: what it is at, and how far."""

    label: str
    state: str = "starting"
    done: int = 0
    total: int = 0
    values: str = ""
    left: float | None = None
    _pace: Pace = field(default_factory=Pace)

    def show(self, done: int, total: int, unit: str, values: str) -> None:
        """Take the latest progress."""
        self.state, self.done, self.total, self.values = counted(done, total, unit), done, total, values
        self.left = self._pace.left(done, total)


class LiveTable:
    """A table at the lower end of a terminal, there while stages run; at most ROWS of them are shown."""

    def __init__(self, console: Console) -> None:
        self.console, self.rows, self.counts, self.total = console, dict[str, Row](), Counter[str](), 0
        self._live: Live | None = None

    def add(self, key: str, label: str) -> None:
        """A stage runs."""
        self.rows[key] = Row(label)
        if not self._live:
            self._live = Live(
                get_renderable=self.render, console=self.console, transient=True, refresh_per_second=4,
                vertical_overflow="crop",
            )  # fmt: skip
            self._live.start()

    def remove(self, key: str, status: str) -> None:
        """A stage ended."""
        self.rows.pop(key, None)
        self.counts[status] += 1
        if not self.rows:
            self.close()

    def close(self) -> None:
        """Take the table away."""
        if self._live:
            self._live.stop()
            self._live = None

    def render(self) -> RenderableType:
        """The table as it is now."""
        table = Table(box=None, show_header=False, padding=(0, 1), expand=True)
        table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True)
        table.add_column(width=12)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        rows = list(self.rows.values())
        for row in rows[:ROWS]:
            bar = ProgressBar(total=(row.total or 1) if row.done <= row.total else None, completed=row.done)
            # labels and values hold users' names: text, not markup
            table.add_row(Text(row.label), Text(row.state), bar, clock(row.left), Text(row.values))
        waiting = self.total - len(rows) - sum(self.counts.values())
        words = [f"{len(rows)} running", f"{waiting} waiting"]
        words += [f"{count} {status}" for status, count in self.counts.items()]
        more = [Text(f" and {len(rows) - ROWS} more")] if len(rows) > ROWS else []
        return Group(table, *more, Text(" " + ", ".join(words), style="dim"))

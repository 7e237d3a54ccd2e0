"""What a scorecard's table is made of: rows, cells with what stands at their numbers, columns, lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import stdev

MISSING = "-"


@dataclass(frozen=True, order=True)
class Note:
    """A mark that stands at numbers and the sentence that explains it."""

    mark: str
    text: str


INCOMPLETE = Note("[k/n]", "mean over only k of the n cells that the rows of this table have together")
DEVIATION = Note(
    "±", "sample standard deviation over seeds, whose mean is shown; of a gain, over its seed by seed gains"
)
SEEDLESS = Note("◦", "one evaluation for all seeds, since nothing behind it depends on a seed")
COLLAPSED = Note("‡", "a model collapsed, predicting one class only, in at least one language and seed")
UNEVEN = Note("§", "not every language has every seed; the deviation is over the seeds that have all")
UNPAIRED = Note("¶", "the row and none have no seed in common: their means over different seeds are subtracted")


@dataclass(frozen=True)
class Row:
    """One way to adapt; variant says what tells it from others of the same name, `lr 1e-3`, where there are any."""

    regime: str
    composition: str
    intermediate: str
    variant: str = ""

    @property
    def label(self) -> str:
        """The row's name in tables: `adapter · stack · mnli`, with its variant in brackets."""
        parts = filter(None, (self.regime, self.composition, self.intermediate))
        return " · ".join(parts) + (f" ({self.variant})" if self.variant else "")


@dataclass(frozen=True)
class Cell:
    """A mean in points: over `languages` of `expected` languages, and over seeds.

    by_seed holds the mean of each seed that covers all of the cell's languages; gain is the difference to
    composition none of the same regime and numbers, on the languages both have. signed cells are differences themselves. seedless
    ones stand for several seeds with one evaluation.
    """

    value: float
    languages: int
    expected: int
    seeds: int
    by_seed: Mapping[int, float]
    notes: tuple[Note, ...] = ()
    gain: "Cell | None" = None
    signed: bool = False
    seedless: bool = False

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds, None below two of them."""
        return stdev(self.by_seed.values()) if len(self.by_seed) > 1 and not self.seedless else None

    @property
    def number(self) -> str:
        """The value with one decimal; a difference carries its sign."""
        rounded = round(self.value, 1) + 0.0  # turns -0.0 into 0.0
        return f"{rounded:+.1f}" if self.signed and rounded else f"{rounded:.1f}"

    @property
    def marks(self) -> str:
        """The marks of the footnotes that apply, in order, each once."""
        return "".join(sorted({note.mark for note in self.notes}))

    @property
    def shown_gain(self) -> "Cell | None":
        """The gain, unless the cell but repeats none, by construction without any."""
        return None if self.gain and "†" in self.marks and not self.gain.value else self.gain

    @property
    def coverage(self) -> str:
        """`[k/n]` if the mean is over fewer languages than expected, else nothing."""
        return f"[{self.languages}/{self.expected}]" if self.languages < self.expected else ""

    @property
    def deviation(self) -> str:
        """The standard deviation over seeds, `±0.4`, or nothing."""
        return "" if self.sd is None else f"±{self.sd:.1f}"

    @property
    def text(self) -> str:
        """Number, marks, deviation and coverage on one line."""
        return " ".join(filter(None, (self.number + self.marks, self.deviation, self.coverage)))


@dataclass(frozen=True)
class Column:
    """A column's name, how many languages (or tasks) it averages, and what else there is to say of it."""

    name: str
    n: int | None = None
    detail: str = ""
    family: str = ""

    @property
    def label(self) -> str:
        """The header: the name with n."""
        return self.name if self.n is None else f"{self.name} (n={self.n})"


@dataclass(frozen=True)
class Line:
    """One line of a table: a row under one metric (empty where every column has its own)."""

    row: Row
    metric: str
    cells: tuple[Cell | None, ...]

    @property
    def seeds(self) -> str:
        """How many seeds the line's cells average, as `3` or `1-3`."""
        counts = {cell.seeds for cell in self.cells if cell}
        return "-".join(map(str, sorted({min(counts), max(counts)}))) if counts else MISSING


@dataclass(frozen=True)
class Table:
    """Lines by columns within one setting; task is empty for the overall table."""

    setting: str
    task: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    @property
    def several_seeds(self) -> bool:
        """Whether a line averages more than one seed."""
        return any(line.seeds not in ("1", MISSING) for line in self.lines)

    @property
    def cells(self) -> list[Cell]:
        """Every cell that exists, the gains inside them too."""
        present = [cell for line in self.lines for cell in line.cells if cell]
        return present + [cell.gain for cell in present if cell.gain]

    @property
    def footnotes(self) -> tuple[Note, ...]:
        """What the marks in this table mean, each once."""
        notes = {note for cell in self.cells for note in cell.notes}
        notes |= {INCOMPLETE for cell in self.cells if cell.coverage}
        notes |= {DEVIATION for cell in self.cells if cell.sd is not None}
        return tuple(sorted(notes))

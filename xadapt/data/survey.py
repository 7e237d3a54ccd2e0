"""What a split holds, read piece by piece: rows, labels, the longest text, what was left out and mended."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from xadapt.data.rows import Rows
from xadapt.data.sources import Source
from xadapt.tasks import Task
from xadapt.tasks.spec import Split

NO_TEXTS = frozenset({"id", "label", "tags", "answers", "side", "gold"})
SHOWN = 20  # labels that are listed; the rest are counted


@dataclass
class Survey:
    """The rows of one task, language and split, counted; its size does not depend on their number.

    first are the first rows. labels counts those of rows or tokens by name, of questions whether they have an answer;
    longest is the length of the longest text in characters, of a sentence in words, at its field and row.
    """

    task: Task
    first: Rows
    rows: int = 0
    skipped: int = 0
    repaired: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    longest: tuple[int, str, int] = (0, "", 0)

    def add(self, rows: Rows) -> None:
        """Count the next rows."""
        numbers = rows.numbers or range(self.rows, self.rows + len(rows))
        self.rows, self.skipped, self.repaired = (
            self.rows + len(rows), self.skipped + rows.skipped, self.repaired + rows.repaired
        )  # fmt: skip
        self.labels.update(_labels(self.task, rows))
        for name in rows.columns.keys() - NO_TEXTS:
            lengths = [max(map(len, text)) if name == "choices" else len(text) for text in rows.columns[name]]
            at = max(range(len(lengths)), key=lengths.__getitem__)
            self.longest = max(self.longest, (lengths[at], name, numbers[at]))

    def __str__(self) -> str:
        """One line for people."""
        length, name, row = self.longest
        unit = "words" if name == "tokens" else "characters"
        parts = [f"{self.rows} rows of {self.first.place}", *self._shown_labels()]
        parts.append(f"longest {self.task.columns[name]} {length} {unit} (row {row})")
        parts += [f"{self.skipped} left out"] if self.skipped else []
        parts += [f"offsets of answers mended in {self.repaired}"] if self.repaired else []
        parts += [f"{self.first.stand_in} stands for it"] if self.first.stand_in else []
        return "; ".join(parts)

    def _shown_labels(self) -> Iterator[str]:
        counts = Counter(dict.fromkeys(self.first.labels or self.task.labels, 0)) + self.labels
        counts.update(dict.fromkeys(set(self.task.labels) - set(counts), 0))
        if counts:
            shown = ", ".join(f"{name} {count}" for name, count in counts.most_common(SHOWN))
            more = f" and {len(counts) - SHOWN} more labels" if len(counts) > SHOWN else ""
            yield f"labels {shown}{more}"


def survey(task: Task, source: Source, lang: str, split: Split, *, keep: int) -> Survey:
    """Every row of a split, through the checks that training and evaluation put it through; the first `keep` are kept.

    Raises UserError, with file, row and column, as they do.
    """
    found: Survey | None = None
    for rows in source.pieces(task, lang, split):
        found = found or Survey(task, rows[:keep])
        found.add(rows)
    assert found is not None, "a split without rows is refused"
    return found


def _labels(task: Task, rows: Rows) -> Iterator[str]:
    names = rows.labels or task.labels
    if task.format == "span":
        yield from ("answered" if answers else "without an answer" for answers in rows.columns["answers"])
    for label in rows.columns.get("label", ()):
        yield names[label]
    for tags in rows.columns.get("tags", ()):
        yield from (names[tag] for tag in tags)

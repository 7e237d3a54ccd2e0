"""Facts in which rows differ, in words: `lr 1e-3`, `reduction 64`, `mnli train rows 720`."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xadapt.analysis.facts import BEHIND, DEFAULT, Fact, Path

# the sections that go without saying
_PLAIN = {"regime", "training", "test"}
_WORDS = {
    "learning_rate": "lr", "num_train_epochs": "epochs", "per_device_train_batch_size": "batch", "max_steps": "steps",
    "gradient_accumulation_steps": "accumulation", "max_seq_length": "length", "reduction_factor": "reduction",
    "lora_alpha": "alpha", "lora_dropout": "dropout", "max_samples": "rows", "ran in": "trained in",
    "version": "stage version",
}  # fmt: skip
_HASH = re.compile(r"(.*[:@])?[0-9a-f]{16,}")


@dataclass(frozen=True)
class Difference:
    """A fact's value in one row; target says for which target alone, mostly for none in particular."""

    path: Path
    target: str
    value: Fact

    @property
    def of(self) -> str:
        """Whose it is: the target's, what was trained behind it, or the row's as a whole."""
        return self.path[1].rpartition("/")[2] if self.path[0] == BEHIND else self.target

    @property
    def name(self) -> str:
        """The fact in the field's words."""
        path = self.path[2:] if self.path[0] == BEHIND else self.path
        if path == ("test", "max_samples"):
            return "test rows"
        parts = [*(part for part in path[:-1] if part not in _PLAIN), *path[-1:]]
        return " ".join(_WORDS.get(part, part.replace("_", " ")) for part in parts)

    @property
    def text(self) -> str:
        """Name and value, without whose it is."""
        match self.value:
            case bool():
                return self.name if self.value else f"no {self.name}"
            case None:
                return f"all {self.name}" if self.name.endswith("rows") else f"no {self.name}"
            case str() if self.value == DEFAULT:
                return f"default {self.name}"
            case str() if not self.name:  # a stage that is not there, which its key names
                return f"{self.of[:8]} {self.value}"
            case str() if _HASH.fullmatch(self.value):
                return f"{self.name} {self.value.rpartition(':')[2].rpartition('@')[2][:8]}"
        return f"{self.name} {number(self.value) if isinstance(self.value, float) else self.value}"


def number(value: float) -> str:
    """A number as people write it, `1e-3` and `0.05`, and never two numbers alike."""
    short = f"{value:g}"
    if float(short) != value:
        short = repr(value)
    if 0 < abs(value) < 0.01 and "e" not in short:
        mantissa, _, exponent = f"{value:e}".partition("e")
        candidate = f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"
        short = candidate if float(candidate) == value else short
    return re.sub(r"e([+-])0*(\d)", r"e\1\2", short).replace("e+", "e")


def column_name(path: Path) -> str:
    """A fact's name as a column of a file: `training.learning_rate`, `mnli.training.max_steps`."""
    if path[0] == BEHIND:
        return ".".join(path[1:])
    return ".".join(path if len(path) > 1 else ("target", *path))  # else a field of the scores' own


def told(differences: Iterable[Difference]) -> Iterator[str]:
    """The differences in words, each once: whose a value is goes unsaid where all have the same."""
    by_name: dict[str, list[Difference]] = defaultdict(list)
    for difference in differences:
        by_name[difference.name].append(difference)
    for found in by_name.values():
        texts = {difference.text for difference in found}
        if len(texts) == 1:
            yield from texts
            continue
        plain = {difference.text for difference in found if not difference.of}
        yield from sorted(plain)
        yield from dict.fromkeys(
            f"{d.of} {d.text}" if d.name else d.text for d in found if d.of and d.text not in plain
        )

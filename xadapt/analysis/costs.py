"""What each way to adapt costs, beside its scores: parameters, operations, memory, time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from xadapt.analysis.table import MISSING, Row

HEADER = (
    "", "trainable", "GFLOP/step", "peak MiB", "before s", "target s", "examples/s", "evaluation s",
)  # fmt: skip
EXPLAINED = (
    "trainable: parameters of the largest target training, head included; GFLOP/step: forward and backward of a target "
    "training's first step, their mean; before: all trainings behind the targets', each once; target, evaluation: sums over "
    "the targets; all of one seed on the machines they ran on, means over seeds"
)


class Cost(BaseModel):
    """What the model of one cell cost, and its evaluation.

    before maps the stages behind the target's own training to their seconds; None stands for what there is not: a
    retrieval target has no training, results of earlier versions no count of operations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    regime: str
    composition: str
    intermediate: str
    task: str
    seed: int
    trainable_parameters: int | None = None
    flops_per_step: float | None = None
    peak_memory_mib: float | None = None
    seconds: float | None = None
    examples: float | None = None
    before: Mapping[str, float] = {}
    evaluation_seconds: float | None = None

    @property
    def row(self) -> Row:
        """The row of the scorecard that it belongs to."""
        return Row(self.regime, self.composition, self.intermediate)


def cost_grid(costs: Iterable[Cost], setting: str) -> list[list[str]]:
    """HEADER and a line for each row of a setting, all as text; only the header if nothing is known."""
    rows: dict[Row, list[Cost]] = {}
    for cost in costs:
        if cost.setting == setting:
            rows.setdefault(cost.row, []).append(cost)
    return [list(HEADER), *([row.label, *_line(found)] for row, found in rows.items())]


def _line(costs: Sequence[Cost]) -> list[str]:
    seeds: dict[int, list[Cost]] = {}
    for cost in costs:
        seeds.setdefault(cost.seed, []).append(cost)
    per_seed = list(seeds.values())
    parameters = [cost.trainable_parameters for cost in costs if cost.trainable_parameters]
    operations = [cost.flops_per_step / 1e9 for cost in costs if cost.flops_per_step]
    memory = [cost.peak_memory_mib for cost in costs if cost.peak_memory_mib]
    seconds, examples = _total(costs, "seconds"), _total(costs, "examples")
    return [
        f"{max(parameters):,}" if parameters else MISSING,
        f"{fmean(operations):,.0f}" if operations else MISSING,
        f"{max(memory):,.0f}" if memory else MISSING,
        _mean(per_seed, lambda of: sum({k: s for cost in of for k, s in cost.before.items()}.values())),
        _mean(per_seed, lambda of: _total(of, "seconds")),
        f"{examples / seconds:,.1f}" if seconds else MISSING,
        _mean(per_seed, lambda of: _total(of, "evaluation_seconds")),
    ]  # fmt: skip


def _total(costs: Iterable[Cost], field: str) -> float:
    return float(sum(getattr(cost, field) or 0 for cost in costs))


def _mean(per_seed: Sequence[Sequence[Cost]], total: Callable[[Sequence[Cost]], float]) -> str:
    found = fmean(total(of) for of in per_seed)
    return f"{found:,.0f}" if found else MISSING

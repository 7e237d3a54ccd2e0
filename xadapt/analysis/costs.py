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
    """What the model of one cell cost, and its evaluation, whose key in the store is `stage`.

    before maps the stages behind the target's own training to their seconds; None stands for what there is not: a
    retrieval target has no training, results of earlier versions no count of operations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    regime: str
    composition: str
    intermediate: str
    variant: str = ""
    task: str
    seed: int
    stage: str = ""
    trainable_parameters: int | None = None
    flops_per_step: float | None = None
    peak_memory_mib: float | None = None
    seconds: float | None = None
    examples: float | None = None
    before: Mapping[str, float] = {}
    evaluation_seconds: float | None = None


def cost_grid(costs: Mapping[Row, Sequence[Cost]]) -> list[list[str]]:
    """HEADER and a line for each row, all as text; nothing if nothing is known."""
    lines = [[row.label, *_line(found)] for row, found in costs.items()]
    return [list(HEADER), *lines] if lines else []


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
        _figure(fmean(operations)) if operations else MISSING,
        f"{max(memory):,.0f}" if memory else MISSING,
        _mean(per_seed, lambda of: sum({k: s for cost in of for k, s in cost.before.items()}.values())),
        _mean(per_seed, lambda of: _total(of, "seconds")),
        f"{examples / seconds:,.1f}" if seconds else MISSING,
        _mean(per_seed, lambda of: _total(of, "evaluation_seconds")),
    ]  # fmt: skip


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _total(costs: Iterable[Cost], field: str) -> float:
    return float(sum(getattr(cost, field) or 0 for cost in costs))


def _mean(per_seed: Sequence[Sequence[Cost]], total: Callable[[Sequence[Cost]], float]) -> str:
    found = fmean(total(of) for of in per_seed)
    return f"{found:,.0f}" if found else MISSING

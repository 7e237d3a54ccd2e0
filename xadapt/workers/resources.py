"""What a stage asks of the machine that runs it, for schedulers that place it; torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xadapt.study.stage import Stage
from xadapt.workers.assignment import Unit

GIB = 1 << 30
# libraries, rows and the activations of a batch
_BESIDE_WEIGHTS = 2 * GIB
# bytes of float32 weights: where they are not at hand, those of xlm-roberta-base
_WEIGHTS = {"xlm-roberta-large": 2_240_000_000, "embedded": 470_000_000}
_BASE = 1_110_000_000
# more threads than this make the training of a base model on a CPU little faster
_CPUS = 4


@dataclass(frozen=True)
class Resources:
    """Cores, GPUs and bytes of main memory."""

    cpus: float
    gpus: float
    memory: int


def resources_of(unit: Unit, machines: Sequence[Mapping[str, float]], *, at_once: int | None = None) -> Resources:
    """What a unit asks for, and no more than the largest machine has.

    machines are what each has, under Ray's names: CPU, GPU, memory. Where there are GPUs, what trains or evaluates has
    one to itself, and each GPU's share of the cores comes with it; where only so many run at once, each has its share.
    """
    most = {name: max(machine.get(name, 0.0) for machine in machines) for name in ("CPU", "GPU", "memory")}
    computes = any(stage.kind in ("train", "evaluate") for stage in unit)
    gpus = 1.0 if computes and most["GPU"] else 0.0
    cores = most["CPU"] / most["GPU"] if most["GPU"] else most["CPU"]
    if at_once:
        cores = min(cores, sum(machine.get("CPU", 0.0) for machine in machines) / at_once)
    return Resources(
        cpus=max(1.0, min(_CPUS, cores // 1)) if computes else 1.0,
        gpus=gpus,
        memory=int(min(max(map(memory_of, unit)), 0.9 * most["memory"])),
    )


def memory_of(stage: Stage) -> int:
    """Bytes of main memory that a stage takes at most, roughly, if no GPU holds any of it."""
    moves_all = stage.kind == "train" and stage.spec["regime"]["name"] == "full"
    copies = 5.0 if moves_all else 1.5  # weights, gradient, two moments, the best so far; or weights and a little
    return int(_BESIDE_WEIGHTS + copies * _weights(stage.where.get("backbone", "")))


def _weights(backbone: str) -> int:
    folder = Path(backbone)
    if backbone and folder.is_dir():
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return _WEIGHTS.get(backbone, _BASE)

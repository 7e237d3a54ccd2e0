"""What a training costs beside time: floating-point operations of a step, and the memory at its peak."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_MIB = 1 << 20
# the CPU's attention, which torch's counter leaves out, by the formulas it has for that of other devices
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),  # type: ignore[no-untyped-call]
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g, q, k, v)  # type: ignore[no-untyped-call]
    ),
}


@dataclass
class Peak:
    """The most memory that was held at once, in MiB: of the accelerator, or of this process on a CPU."""

    device: torch.device
    mib: float = 0.0

    def read(self) -> None:
        """Take down what it is so far."""
        cuda = self.device.type == "cuda"
        self.mib = round((torch.cuda.max_memory_allocated(self.device) if cuda else _resident_peak()) / _MIB, 1)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Fills in the Peak at the end. On a CPU it is the process's resident memory, what was there before included.

    Where the system cannot forget an earlier peak (not Linux), that one may still stand.
    """
    peak = Peak(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    try:
        yield peak
    finally:
        peak.read()


def _resident_peak() -> int:
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Counts the floating-point operations of matrix products and attention inside, by torch's own counter."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        yield counter

"""What a training costs beside time: floating-point operations of a step, and the memory at its peak."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

_MIB = 1 << 20


@dataclass
class Peak:
    """The most memory that was held at once, in MiB: of the accelerator, or of this process on a CPU."""

    mib: float = 0.0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Fills in the Peak at the end. On a CPU it is the process's resident memory, what was there before included.

    Where the system cannot forget an earlier peak (not Linux), that one may still stand.
    """
    peak = Peak()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    try:
        yield peak
    finally:
        peak.mib = round((torch.cuda.max_memory_allocated(device) if cuda else _resident_peak()) / _MIB, 1)


def _resident_peak() -> int:
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Counts the floating-point operations of matrix products and attention inside, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        yield counter

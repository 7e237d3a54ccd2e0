"""Which floating-point type `auto` means on this machine, decided without torch so that plans can name it."""

import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path

Capability = tuple[int, int]
BF16_SINCE: Capability = (8, 0)  # Ampere; what is older computes bfloat16 by way of float32, slower than that
_CPU_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
_ASKING_SECONDS = 20
# In a process of its own: a driver that was initialised cannot be used in a process forked off later. The driver itself
# reads CUDA_VISIBLE_DEVICES. 75 and 76 are the attributes of the capability's two numbers.
_ASK_DRIVER = """
import ctypes
driver, count, value = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_int()
assert driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
for device in range(count.value):
    for attribute in (75, 76):
        assert driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) == 0
        print(value.value)
"""


def resolve_dtype(dtype: str) -> str:
    """ "auto" becomes "bfloat16" where the hardware computes in it, else "float32"; other values stay."""
    if dtype != "auto":
        return dtype
    gpus = gpu_capabilities()
    return "bfloat16" if (computes_bf16(gpus) if gpus else _cpu_has_bf16()) else "float32"


def computes_bf16(gpus: Sequence[Capability]) -> bool:
    """Whether all of some GPUs compute in bfloat16 themselves, any of which may get a stage."""
    return all(capability >= BF16_SINCE for capability in gpus)


@lru_cache(maxsize=1)
def gpu_capabilities(devices: Path = Path("/dev")) -> tuple[Capability, ...]:
    """The compute capabilities of the GPUs that torch would see, by the driver's word; none where there is no driver."""
    if not _has_gpu_node(devices) or _torch_is_for_cpus():
        return ()
    with suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(
            [sys.executable, "-I", "-c", _ASK_DRIVER],
            capture_output=True,
            text=True,
            timeout=_ASKING_SECONDS,
            check=True,
        )
        numbers = [int(line) for line in asked.stdout.split()]
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return ()


def _has_gpu_node(devices: Path) -> bool:
    """Whether there is a GPU of any number (a container may show the second alone), or Windows' below Linux."""
    return any(re.fullmatch(r"nvidia\d+|dxg", path.name) for path in devices.glob("*"))


def _torch_is_for_cpus() -> bool:
    return metadata.version("torch").endswith("+cpu")


@lru_cache(maxsize=1)
def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and bool(_CPU_BF16_FLAGS & set(cpuinfo.read_text().split()))

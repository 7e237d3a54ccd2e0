"""Which floating-point type `auto` means on this machine, decided without torch so that plans can name it."""

import os
from functools import lru_cache
from pathlib import Path

_CPU_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def resolve_dtype(dtype: str) -> str:
    """ "auto" becomes "bfloat16" where the hardware computes in it, else "float32"; other values stay."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if _has_gpu() or _cpu_has_bf16() else "float32"


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


@lru_cache(maxsize=1)
def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and bool(_CPU_BF16_FLAGS & set(cpuinfo.read_text().split()))

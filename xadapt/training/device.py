"""What a model runs on: the device and its precision, and how much goes through it at once."""

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState


def make_accelerator(dtype: str) -> Accelerator:
    """An Accelerator for "float32" or "bfloat16", whatever an earlier stage of this process ran in."""
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(mixed_precision="bf16" if dtype == "bfloat16" else "no")


def make_deterministic() -> None:
    """Let this process's GPU add numbers up in one order, so that the same work gives the same bytes; slower.

    A CPU does so anyhow, for one number of threads, and is left alone.
    """
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants, before its first product
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def default_token_budget(device: torch.device) -> int:
    """Padded tokens a forward pass takes at once.

    On a CPU few: activations of 1,024 tokens stay in its caches and are handed out again by the allocator, where
    those of 4,096 are mapped anew each time (measured a quarter slower). A GPU wants many.
    """
    return 1024 if device.type == "cpu" else 32768

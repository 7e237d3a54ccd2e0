"""What a model runs on: the device and its precision, and how much goes through it at once."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState


def make_accelerator(dtype: str) -> Accelerator:
    """An Accelerator for "float32" or "bfloat16", whatever an earlier stage of this process ran in."""
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(mixed_precision="bf16" if dtype == "bfloat16" else "no")


def default_token_budget(device: torch.device) -> int:
    """Padded tokens a forward pass takes at once.

    On a CPU few: activations of 1,024 tokens stay in its caches and are handed out again by the allocator, where
    those of 4,096 are mapped anew each time (measured a quarter slower). A GPU wants many.
    """
    return 1024 if device.type == "cpu" else 32768

"""AdamW without decay on biases and LayerNorm, linear warm-up and linear decay."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from xadapt.training.settings import TrainingSettings


def make_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], settings: TrainingSettings
) -> torch.optim.AdamW:
    """AdamW over the parameters given, in two groups: weight decay on matrices, none on biases, LayerNorm and
    AdapterFusion's value matrices."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        # AdapterFusion's value matrices start at the identity and are held there by a penalty of their own
        value = "adapter_fusion" in name and name.endswith("value.weight")
        exempt = value or name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name
        (plain if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, eps=settings.adam_epsilon, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, settings: TrainingSettings, total_steps: int) -> LambdaLR:
    """The learning rate rises over warmup_ratio of the steps, then falls linearly to zero."""
    warmup = math.ceil(total_steps * settings.warmup_ratio)
    schedule: LambdaLR = get_linear_schedule_with_warmup(optimizer, warmup, total_steps)
    return schedule

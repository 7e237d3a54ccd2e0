"""Logits for features, sorted by length, in their own order: the forward pass of dev and test alike."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xadapt.formats import Features
from xadapt.formats.features import collate
from xadapt.training.batching import micro_batches


def predict_logits(
    model: nn.Module, features: Features, *, pad_token_id: int, token_budget: int, device: torch.device,
    progress: Callable[[int], None] | None = None, watch: Callable[[Sequence[Sequence[int]], Tensor], None] | None = None,
) -> list[Tensor]:  # fmt: skip
    """One logits tensor a feature on the CPU in fp32: [labels] for classification, [tokens, labels] for tagging.

    progress is told the number of features done after each batch, watch its features and its attention mask.
    """
    model.eval()
    found: list[Tensor | None] = [None] * len(features)
    lengths = features.lengths
    with torch.inference_mode():
        for indices in micro_batches(range(len(features)), lengths, token_budget=token_budget):
            batch = collate(features, indices, pad_token_id)
            logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).float().cpu()
            if watch:
                watch([[i] for i in indices], batch["attention_mask"])
            for at, i in enumerate(indices):
                found[i] = logits[at, : lengths[i]] if logits.dim() == 3 else logits[at]
            if progress:
                progress(len(indices))
    return [logits for logits in found if logits is not None]

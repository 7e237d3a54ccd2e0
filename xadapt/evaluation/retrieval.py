"""Sentence vectors for retrieval: a hidden state, averaged over tokens, normalised."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from xadapt.formats import Features
from xadapt.formats.features import collate
from xadapt.training.batching import micro_batches


def sentence_vectors(
    encoder: PreTrainedModel, features: Features, *, layer: int, pad_token_id: int, token_budget: int,
    device: torch.device, progress: Callable[[int], None] | None = None,
) -> list[Tensor]:  # fmt: skip
    """One unit vector [hidden] a feature: the mean of hidden_states[layer] over all tokens, specials included.

    layer counts the embeddings as 0. This is XTREME's pooling (google-research/xtreme, evaluate_retrieval.py).
    """
    encoder.eval()
    found: list[Tensor] = [torch.empty(0)] * len(features)
    with torch.inference_mode():
        for indices in micro_batches(range(len(features)), features.lengths, token_budget=token_budget):
            batch = {name: tensor.to(device) for name, tensor in collate(features, indices, pad_token_id).items()}
            states = encoder(**batch, output_hidden_states=True).hidden_states[layer].float()
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
            for i, vector in zip(indices, torch.nn.functional.normalize(mean, dim=-1).cpu(), strict=True):
                found[i] = vector
            if progress:
                progress(len(indices))
    return found

"""Sentence vectors for retrieval: a hidden state, averaged over tokens, normalised."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from xadapt.formats import Features
from xadapt.formats.features import collate
from xadapt.training.prediction import in_micro_batches


def sentence_vectors(
    encoder: PreTrainedModel, features: Features, *, layer: int, pad_token_id: int, token_budget: int,
    device: torch.device, progress: Callable[[int], None] | None = None,
    watch: Callable[[Sequence[Sequence[int]], Tensor], None] | None = None,
) -> list[Tensor]:  # fmt: skip
    """One unit vector [hidden] a feature: the mean of hidden_states[layer] over all tokens, specials included.

    layer counts the embeddings as 0; layers above it are not computed, and a sentence that stands several times is
    encoded once. IndexError for a layer it lacks. This is XTREME's pooling (google-research/xtreme, evaluate_retrieval.py).
    """

    def run(rows: list[int]) -> tuple[dict[str, Tensor], Tensor]:
        batch = {name: tensor.to(device) for name, tensor in collate(features, rows, pad_token_id).items()}
        states, mask = encoder(**batch).last_hidden_state.float(), batch["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return batch, torch.nn.functional.normalize(mean, dim=-1).cpu()

    encoder.eval()
    same: dict[tuple[int, ...], list[int]] = {}
    for i, ids in enumerate(features.input_ids):
        same.setdefault(tuple(ids), []).append(i)
    found: list[Tensor] = [torch.empty(0)] * len(features)
    with torch.inference_mode(), _up_to(encoder, layer):
        once = [at[0] for at in same.values()]
        for firsts, batch, vectors in in_micro_batches(run, once, features.lengths, token_budget=token_budget):
            places = [same[tuple(features.input_ids[first])] for first in firsts]
            if watch:
                watch(places, batch["attention_mask"])
            for vector, at in zip(vectors, places, strict=True):
                for i in at:
                    found[i] = vector
            if progress:
                progress(sum(map(len, places)))
    return found


@contextmanager
def _up_to(encoder: PreTrainedModel, layer: int) -> Iterator[None]:
    """Inside, the encoder ends behind its first `layer` layers: XLM-R has nothing behind the last."""
    stack: Any = encoder.encoder
    whole = stack.layer
    if layer > len(whole):
        raise IndexError(f"layer {layer} of {len(whole)}")
    stack.layer = whole[:layer]
    try:
        yield
    finally:
        stack.layer = whole

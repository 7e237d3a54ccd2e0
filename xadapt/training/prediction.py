"""Logits for features, sorted by length, in their own order: the forward pass of dev and test alike."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from xadapt import interruption
from xadapt.formats import Features
from xadapt.formats.features import collate
from xadapt.memory import out_of_memory, release_memory
from xadapt.training.batching import micro_batches
from xadapt.training.faults import halved


def predict_logits(
    model: nn.Module, features: Features, *, pad_token_id: int, token_budget: int, device: torch.device,
    progress: Callable[[int], None] | None = None, watch: Callable[[Sequence[Sequence[int]], Tensor], None] | None = None,
) -> list[Tensor]:  # fmt: skip
    """One logits tensor a feature on the CPU in fp32: [labels] for classification, [tokens, labels] for tagging.

    progress is told the number of features done after each batch, watch its features and its attention mask.
    """

    def run(indices: list[int]) -> tuple[dict[str, Tensor], Tensor]:
        batch = collate(features, indices, pad_token_id)
        return batch, model(**{name: tensor.to(device) for name, tensor in batch.items()}).float().cpu()

    model.eval()
    found: list[Tensor | None] = [None] * len(features)
    lengths = features.lengths
    with torch.inference_mode():
        for indices, batch, logits in in_micro_batches(run, range(len(features)), lengths, token_budget=token_budget):
            if watch:
                watch([[i] for i in indices], batch["attention_mask"])
            for at, i in enumerate(indices):
                found[i] = logits[at, : lengths[i]] if logits.dim() == 3 else logits[at]
            if progress:
                progress(len(indices))
    return [logits for logits in found if logits is not None]


def in_micro_batches(
    run: Callable[[list[int]], tuple[dict[str, Tensor], Tensor]], indices: Sequence[int], lengths: Sequence[int], *,
    token_budget: int,
) -> Iterator[tuple[list[int], dict[str, Tensor], Tensor]]:  # fmt: skip
    """Run on micro-batches, longest first: the rows of each, what they were as a batch, and what came out.

    They are cut smaller for as long as memory does not suffice. Raises Interrupted, between two, where a stop is asked
    for.
    """
    left = list(micro_batches(indices, lengths, token_budget=token_budget))[::-1]
    while left:
        interruption.check()
        rows = left.pop()
        if ran := _unless_out_of_memory(run, rows):
            yield rows, *ran
            continue
        release_memory()
        token_budget = halved(token_budget, [(len(rows), len(rows) * max(lengths[i] for i in rows))])
        rest = [i for batch in [*left, rows] for i in batch]
        left = list(micro_batches(rest, lengths, token_budget=token_budget))[::-1]


def _unless_out_of_memory(
    run: Callable[[list[int]], tuple[dict[str, Tensor], Tensor]], rows: list[int]
) -> tuple[dict[str, Tensor], Tensor] | None:
    try:
        return run(rows)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None

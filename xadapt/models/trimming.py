"""Vocabulary trimming: full fine-tuning on the embedding rows that occur, the whole matrix written back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.data.ragged import Ragged


@dataclass(frozen=True)
class TrimmedVocabulary:
    """A word embedding cut down to the rows in `ids` (sorted), with the whole matrix kept aside.

    A row whose piece never occurs gets no gradient: AdamW only decays it. Training the rows that occur is
    therefore the same mathematics without the gradients and moments of the rest.
    """

    ids: Tensor
    full: Tensor

    def map(self, sequences: Sequence[Sequence[int]]) -> Ragged:
        """Token ids to positions in the trimmed matrix; KeyError for one that is not in it."""
        kept, given = self.ids.numpy(), Ragged.of(sequences)
        positions = np.searchsorted(kept, given.flat).clip(max=len(kept) - 1)
        if len(strange := given.flat[kept[positions] != given.flat]):
            raise KeyError(int(strange[0]))
        return Ragged(positions.astype(np.int32), given.bounds)

    def restore(self, encoder: PreTrainedModel, *, decay: float) -> None:
        """Put the whole matrix back: trained rows where they belong, the others times the decay they missed.

        decay is the product of (1 - learning_rate * weight_decay) over the steps taken.
        """
        embeddings = encoder.get_input_embeddings()
        whole = self.full.to(embeddings.weight.device) * decay
        whole[self.ids] = embeddings.weight.data
        encoder.set_input_embeddings(_embedding(whole, embeddings.padding_idx))


def trim_vocabulary(encoder: PreTrainedModel, sequences: Iterable[Sequence[int]]) -> TrimmedVocabulary:
    """Replace the encoder's word embedding by the rows that occur; special tokens 0 to 3 keep their places.

    The padding index must keep its place since XLM-R counts positions by it.
    """
    occurring = {0, 1, 2, 3}
    for sequence in sequences:
        occurring.update(sequence)
    ids = torch.tensor(sorted(occurring))
    embeddings = encoder.get_input_embeddings()
    full = embeddings.weight.data
    encoder.set_input_embeddings(_embedding(full[ids].clone(), embeddings.padding_idx))
    return TrimmedVocabulary(ids, full)


def _embedding(weight: Tensor, padding_idx: int | None) -> nn.Embedding:
    rows, width = weight.shape
    return nn.Embedding(rows, width, padding_idx=padding_idx, _weight=weight, _freeze=False)

"""Masked language modelling's input: which tokens are to be predicted, and what stands in their place."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

RATE, MASKED, REPLACED = 0.15, 0.8, 0.1  # of the tokens; of the chosen ones


@dataclass(frozen=True)
class Masking:
    """How a sequence is disguised: by which mask token, out of which vocabulary, sparing which special tokens."""

    mask_token_id: int
    vocab_size: int
    special_ids: tuple[int, ...]

    @cached_property
    def _ordinary(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.vocab_size), self.special_ids)

    def disguise(self, ids: Sequence[int], draw: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The sequence as the model sees it, and which of its tokens are to be predicted; the same for the same draw.

        Each ordinary token is chosen with probability 0.15, at least one a sequence; of the chosen 80 % become the
        mask, 10 % any ordinary token, 10 % stay (Devlin et al. 2019, section 3.1).
        """
        rng = np.random.default_rng(list(draw))
        seen = np.array(ids, dtype=np.int64)
        ordinary = np.flatnonzero(~np.isin(seen, self.special_ids))
        chosen = ordinary[rng.random(len(ordinary)) < RATE]
        if not len(chosen) and len(ordinary):
            chosen = rng.choice(ordinary, 1)
        lots = rng.random(len(chosen))
        seen[chosen[lots < MASKED]] = self.mask_token_id
        others = chosen[(lots >= MASKED) & (lots < MASKED + REPLACED)]
        seen[others] = rng.choice(self._ordinary, len(others))
        predicted = np.zeros(len(seen), dtype=bool)
        predicted[chosen] = True
        return seen, predicted

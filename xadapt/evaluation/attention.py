"""What a fusion attends to: the mean attention each module gets, by layer and language."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor, nn

from xadapt.models.fusion_attention import FusionAttention, fusion_layers

SCHEMA = pa.schema(
    [("language", pa.string()), ("layer", pa.int32()), ("module", pa.string()), ("attention", pa.float64())]
)


@dataclass(frozen=True)
class Attention:
    """The mean attention of one language: every feature counts alike (a window, both sides of a retrieval pair), of it
    every token."""

    language: str
    layer: int
    module: str
    attention: float


def _over_tokens(attention: Tensor, shares: Tensor) -> Tensor:
    """[sequences, modules] from [sequences, tokens, modules], each token by its share; a single token stands for all."""
    return attention[:, 0] if attention.shape[1] == 1 else (attention * shares.unsqueeze(-1)).sum(dim=1)


class AttentionMeans:
    """Collects the attention of an encoder's fusions while rows are predicted; empty for one without any.

    A layer with several fusions, such as one at each linear layer that LoRA is on, counts as their mean. modules names
    what is fused, in order; layers is how many the encoder has.
    """

    def __init__(self, encoder: nn.Module, modules: Sequence[str], *, layers: int) -> None:
        self._fusions: list[FusionAttention] = fusion_layers(encoder)
        self._modules, self._places = modules, max(1, len(self._fusions) // layers)
        self._features: dict[int, np.ndarray] = {}
        self._sums: dict[str, tuple[np.ndarray, int]] = {}
        for fusion in self._fusions:
            fusion.recording = True

    def watch(self, features: Sequence[Sequence[int]], mask: Tensor) -> None:
        """Note the last forward pass: `mask` [sequences, tokens], each of features the equal ones that one stands for.

        The sequences of a feature, such as the choices of a row, stand together.
        """
        if not self._fusions:
            return
        shares = mask.float() / mask.sum(dim=1, keepdim=True)
        means = np.full((len(features), len(self._fusions), len(self._modules)), np.nan)
        for at, fusion in enumerate(self._fusions):
            if (found := fusion.probabilities) is not None:  # None above the layer that retrieval pools
                each = _over_tokens(found.float(), shares.to(found.device)).cpu().numpy()
                means[:, at] = each.reshape(len(features), -1, each.shape[-1]).mean(axis=1)
        for equal, mean in zip(features, means, strict=True):
            self._features |= dict.fromkeys(equal, mean)

    def add(self, lang: str, features: Iterable[int]) -> None:
        """Count features that were watched towards a language."""
        found = [self._features.pop(feature) for feature in features if feature in self._features]
        if found:
            total, count = self._sums.get(lang, (np.zeros_like(found[0]), 0))
            self._sums[lang] = (total + np.sum(found, axis=0), count + len(found))

    def means(self, lang: str | None = None) -> Iterator[Attention]:
        """The mean of every language, or of one, by layer (from 1) and module; layers not computed are left out."""
        chosen = self._sums if lang is None else {lang: self._sums[lang]} if lang in self._sums else {}
        for lang, (total, count) in chosen.items():
            mean = (total / count).reshape(-1, self._places, len(self._modules)).mean(axis=1)
            for layer, of in enumerate(mean, start=1):
                for module, value in zip(self._modules, of.tolist(), strict=True):
                    if not np.isnan(value):
                        yield Attention(lang, layer, module, value)


def write_attention(means: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write means as Parquet: language, layer, module, attention; nothing where nothing was fused."""
    if rows := list(means):
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def fused_modules(artefact: Path) -> list[str]:
    """The names of the modules that an artefact, or what it lies on, fuses; empty without a fusion."""
    folder = artefact
    while not (folder / "fused").is_dir():
        folder = folder / "below"
        if not folder.is_dir():
            return []
    return [path.name.partition("-")[2] for path in sorted((folder / "fused").iterdir())]

"""Full fine-tuning: the encoder itself is the artefact, a plain transformers folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from xadapt.models.backbone import Backbone, load_encoder
from xadapt.regimes.specs import FusionSpec


class FullRegime:
    """Every parameter moves; continue means STILTs (Phang et al. 2018): start from the intermediate encoder."""

    def attach(
        self, backbone: Backbone, *, name: str | None, start: Path | None = None, below: Path | None = None,
        fuse: Sequence[Path] = (), fusion: FusionSpec | None = None,
    ) -> PreTrainedModel:  # fmt: skip
        assert below is None, "nothing can lie below full fine-tuning"
        assert not fuse, "full fine-tuning has no modules to fuse"
        return backbone.encoder(start)

    def trainable(self, encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
        yield from encoder.named_parameters()

    def penalty(self, encoder: PreTrainedModel) -> None:
        return None

    def save(self, encoder: PreTrainedModel, folder: Path, *, name: str | None) -> None:
        encoder.save_pretrained(folder, safe_serialization=True)

    def load(self, backbone: Backbone, folder: Path, *, merged: bool = False) -> PreTrainedModel:
        return load_encoder(folder)

    def average(self, folders: Sequence[Path], weights: Sequence[float], folder: Path, *, name: str) -> None:
        raise AssertionError("full fine-tuning has no modules to average")

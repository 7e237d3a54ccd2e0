"""Full fine-tuning: the encoder itself is the artefact, a plain transformers folder."""

from collections.abc import Iterator
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from xadapt.models.backbone import Backbone, load_encoder


class FullRegime:
    """Every parameter moves; continue means STILTs (Phang et al. 2018): start from the intermediate encoder."""

    def attach(
        self, backbone: Backbone, *, name: str, start: Path | None = None, below: Path | None = None
    ) -> PreTrainedModel:
        assert below is None, "nothing can lie below full fine-tuning"
        return backbone.encoder(start)

    def trainable(self, encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
        yield from encoder.named_parameters()

    def save(self, encoder: PreTrainedModel, folder: Path, *, name: str) -> None:
        encoder.save_pretrained(folder, safe_serialization=True)

    def load(self, backbone: Backbone, folder: Path) -> PreTrainedModel:
        return load_encoder(folder)

"""The Backbone: an XLM-R encoder and its tokenizer, loaded afresh for every stage."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from xadapt.models.identity import backbone_folder, backbone_identity, retrieval_layer


@dataclass(frozen=True)
class Backbone:
    """An encoder by the name the user gave: a hub id, a folder or `embedded`."""

    name: str

    @cached_property
    def folder(self) -> Path:
        """Where config, weights and tokenizer lie."""
        return backbone_folder(self.name)

    @cached_property
    def identity(self) -> str:
        """What identifies the weights and the tokenizer in stage keys."""
        return backbone_identity(self.name)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The fast tokenizer, quiet about texts longer than the model."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder, use_fast=True, trust_remote_code=False)
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        return tokenizer

    @property
    def config(self) -> XLMRobertaConfig:
        return XLMRobertaConfig.from_pretrained(self.folder)

    @property
    def retrieval_layer(self) -> int:
        """The layer that retrieval pools unless told otherwise."""
        return retrieval_layer(self.config.num_hidden_layers, embedded=self.name == "embedded")

    def encoder(self, folder: Path | None = None) -> PreTrainedModel:
        """The encoder in fp32 with scaled-dot-product attention; from another folder if one is given."""
        return load_encoder(folder or self.folder)


def load_encoder(folder: Path) -> PreTrainedModel:
    """Load an XLM-R encoder from safetensors; pickled weights and remote code are never opened."""
    return XLMRobertaModel.from_pretrained(
        folder, add_pooling_layer=False, use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
    )

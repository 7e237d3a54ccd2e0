"""The Backbone: an XLM-R encoder and its tokenizer, loaded afresh for every stage."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from xadapt.models.heads import MaskedLanguageHead
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


def start_language_head(head: MaskedLanguageHead, encoder: PreTrainedModel, folder: Path) -> None:
    """Fit a head to an encoder's vocabulary, with the weights of the language model head where the folder has one."""
    head.fit_to(encoder.get_input_embeddings())
    weights: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith("lm_head.")]  # noqa: SIM118 (no dict)
            weights |= {name.removeprefix("lm_head."): tensors.get_tensor(name) for name in names}
    if head.state_dict().keys() <= weights.keys():
        head.load_state_dict({name: weights[name] for name in head.state_dict()})


def load_encoder(folder: Path) -> PreTrainedModel:
    """Load an XLM-R encoder from safetensors; pickled weights and remote code are never opened."""
    return XLMRobertaModel.from_pretrained(
        folder, add_pooling_layer=False, use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
    )

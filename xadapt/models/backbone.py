"""The Backbone: an XLM-R encoder and its tokenizer, loaded afresh for every stage."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from xadapt.errors import UserError
from xadapt.models.encoder_files import CONFIG, INDEX, WEIGHTS, shard_of_tensors, tokenizer_arguments, weight_files
from xadapt.models.heads import MaskedLanguageHead
from xadapt.models.identity import backbone_folder, backbone_identity, retrieval_layer

# what a checkpoint may have beside the encoder: a head of the language model, a pooler
_BESIDE = re.compile(r"(^|\.)(lm_head|pooler)\.")


@dataclass(frozen=True)
class Backbone:
    """An encoder by the name the user gave: a hub id, read at the commit given for its branch, a folder or `embedded`."""

    name: str
    commits: Mapping[str, str] = field(default_factory=dict, compare=False)

    @cached_property
    def folder(self) -> Path:
        """Where config, weights and tokenizer lie."""
        return backbone_folder(self.name, commits=self.commits)

    @cached_property
    def identity(self) -> str:
        """What identifies the weights and the tokenizer in stage keys."""
        return backbone_identity(self.name, commits=self.commits)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The fast tokenizer, quiet about texts longer than the model."""
        arguments = {"use_fast": True, "trust_remote_code": False, **tokenizer_arguments(self.folder)}
        with _loading(self.folder, "the tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(self.folder, config=self.config, **arguments)
        if not tokenizer.is_fast:
            raise UserError(f"{self.folder}: {type(tokenizer).__name__} is no fast tokenizer; save one with the model")
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        return tokenizer

    @property
    def config(self) -> XLMRobertaConfig:
        return _config(self.folder)

    @property
    def retrieval_layer(self) -> int:
        """The layer that retrieval pools unless told otherwise."""
        return retrieval_layer(self.config.num_hidden_layers, embedded=self.name == "embedded")

    def encoder(self, folder: Path | None = None) -> PreTrainedModel:
        """The encoder in fp32 with scaled-dot-product attention; from another folder if one is given."""
        return load_encoder(folder or self.folder)


def start_language_head(head: MaskedLanguageHead, encoder: PreTrainedModel, folder: Path) -> None:
    """Fit a head to an encoder's vocabulary, with the weights of the language model head where the folder has one.

    Raises UserError for a head that is there in part, or has other shapes.
    """
    head.fit_to(encoder.get_input_embeddings())
    given = _tensors(folder, lambda name: name.startswith("lm_head."))
    weights = {name.removeprefix("lm_head."): tensor for name, tensor in given.items()}
    if not weights:
        return
    if "decoder.bias" in weights:  # one tensor of two names, and files keep either
        weights.setdefault("bias", weights["decoder.bias"])
    expected = head.state_dict()
    wrong = [name for name, own in expected.items() if name not in weights or weights[name].shape != own.shape]
    _refuse(folder, [f"lm_head.{name}" for name in wrong], "of the language model head lack or have other shapes")
    head.load_state_dict({name: weights[name] for name in expected})


def load_encoder(folder: Path) -> PreTrainedModel:
    """Load an XLM-R encoder from safetensors; pickled weights and remote code are never opened.

    Raises UserError unless the folder has every tensor of the encoder in its shape, and none beside them but those of a
    language model head or a pooler: with the library alone, what lacks would be drawn at random.
    """
    tensors = _tensors(folder, lambda _: True)
    with _loading(folder, f"an encoder such as {CONFIG} describes"):
        encoder, found = XLMRobertaModel.from_pretrained(
            None, config=_config(folder), state_dict=tensors, add_pooling_layer=False, use_safetensors=True,
            trust_remote_code=False, attn_implementation="sdpa", output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    _refuse(folder, found["missing_keys"], "of the encoder are missing")
    _refuse(folder, found["mismatched_keys"], f"have other shapes than {CONFIG} says")
    beside = [name for name in found["unexpected_keys"] if not _BESIDE.search(name)]
    _refuse(folder, beside, f"are none of an XLM-R encoder such as {CONFIG} describes")
    encoder.name_or_path = encoder.config.name_or_path = str(folder)
    return encoder


@contextmanager
def _loading(folder: Path, what: str) -> Iterator[None]:
    """Inside, the library makes something of a folder's files; UserError naming the folder if it cannot."""
    try:
        yield
    except UserError:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file gives whatever it leads the library to
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"{folder}: {what} cannot be loaded ({type(error).__name__}: {reason}); save model and tokenizer again"
        ) from error


@contextmanager
def fitting(file: Path, tensors: Mapping[str, Tensor], encoder: nn.Module, *, part: str) -> Iterator[None]:
    """Inside, a library loads a file's tensors; UserError unless they are all of the encoder with `part` in their names.

    Libraries load what fits, and leave the rest as it was drawn.
    """
    failed: RuntimeError | None = None
    try:
        yield
    except RuntimeError as error:  # of other shapes, as a rule
        failed = error
    expected = {name: tensor.shape for name, tensor in encoder.state_dict().items() if part in name}
    names = sorted(tensors.keys() | expected.keys())
    if wrong := [name for name in names if name not in tensors or tensors[name].shape != expected.get(name)]:
        raise UserError(
            f"{file}: {len(wrong)} tensors are missing, do not belong there or have other shapes, the first is "
            f"'{wrong[0]}'; use the backbone that it was trained on, or train it again"
        ) from failed
    if failed:
        raise failed


def _config(folder: Path) -> XLMRobertaConfig:
    return XLMRobertaConfig.from_pretrained(folder / CONFIG)


def _tensors(folder: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """The wanted tensors of a folder's weights; of shards, each from the one that the index has it in."""
    files = weight_files(folder)
    shards: Mapping[str, str] = {} if files == [folder / WEIGHTS] else shard_of_tensors(folder)
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                names = [name for name in tensors.keys() if wanted(name) and shards.get(name, file.name) == file.name]  # noqa: SIM118 (no dict)
                found |= {name: tensors.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise UserError(f"{file} is damaged ({error}); fetch or save it again") from error
    return found


def _refuse(folder: Path, names: Collection[str], what: str) -> None:
    """UserError if there are tensors that something is wrong with."""
    if names:
        file = WEIGHTS if (folder / WEIGHTS).is_file() else INDEX
        raise UserError(
            f"{folder / file}: {len(names)} tensors {what}, the first is '{min(names)}'; save the whole encoder again, "
            "with the config.json that belongs to it"
        )

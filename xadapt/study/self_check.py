"""The self-check of an artefact: a few inputs with what its model gave for them, computed again wherever it is loaded.

Checksums say that the files are those that were written. The check says that they still make the model that was
trained: it fails on another backbone, on a library that computes something else, on a wrong way to load.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from xadapt.errors import UserError
from xadapt.formats import Features
from xadapt.formats.features import collate
from xadapt.models.task_model import shares_embedding
from xadapt.regimes.protocol import Regime, open_regime
from xadapt.study.stage import Stage
from xadapt.study.store import Result
from xadapt.study.surroundings import REGIME_SPEC, Surroundings

CHECK = "check.safetensors"
ROWS, TOKENS = 2, 64
# Of the root mean square of what is compared. Threads, attention kernels, instruction sets and a merged LoRA stay below
# 5e-6; LayerNorm with an epsilon of 1e-5 for 1e-12 makes 5e-4.
TOLERANCE = 2e-4
_SENTENCES = (
    "The ferry to the island leaves at half past nine, if the wind allows it.",
    "El cartero dejó dos cartas y un paquete en casa de los vecinos.",
)


@dataclass(frozen=True)
class Example:
    """Inputs [sequences, tokens] that a check feeds to the encoder and to the head of the task they are named after."""

    name: str
    input_ids: Tensor
    attention_mask: Tensor

    @classmethod
    def of_rows(cls, name: str, features: Features, *, pad_token_id: int) -> "Example":
        """The first rows of a task, cut to TOKENS."""
        batch = collate(features, range(min(ROWS, len(features))), pad_token_id)
        return cls(name, batch["input_ids"][:, :TOKENS], batch["attention_mask"][:, :TOKENS])

    @classmethod
    def of_sentences(cls, tokenizer: PreTrainedTokenizerFast) -> "Example":
        """Sentences that are always the same, for an encoder without any task's head."""
        batch = tokenizer(list(_SENTENCES), truncation=True, max_length=TOKENS, padding=True, return_tensors="pt")
        return cls("encoder", batch["input_ids"], batch["attention_mask"])


def write_check(
    folder: Path, encoder: PreTrainedModel, examples: Iterable[Example], heads: Mapping[str, nn.Module] | None = None
) -> None:
    """Keep examples and outputs in an artefact's folder; encoder and heads are left on the CPU, in eval mode."""
    tensors: dict[str, Tensor] = {}
    for example in examples:
        kept = {"input_ids": example.input_ids, "attention_mask": example.attention_mask}
        kept |= _outputs(encoder, (heads or {}).get(example.name), example)
        tensors |= {f"{example.name}/{key}": tensor.contiguous() for key, tensor in kept.items()}
    save_file(tensors, folder / CHECK)


def verify_check(
    trained: Result, encoder: PreTrainedModel, head: nn.Module | None = None, *, task: str | None = None
) -> None:
    """UserError unless a loaded model gives what it gave when the artefact was made; one without a check passes.

    task says whose of several heads it is. Without a head the encoder's output alone is compared.
    """
    if CHECK not in trained.manifest["files"]:
        return
    kept = load_file(trained.folder / CHECK)
    names = list(dict.fromkeys(key.rpartition("/")[0] for key in kept))
    name = task if task is not None and task in names else names[0]
    example = Example(name, kept[f"{name}/input_ids"], kept[f"{name}/attention_mask"])
    for key, found in _outputs(encoder, head, example).items():
        expected = kept[f"{name}/{key}"]
        if not (difference := _difference(found, expected)) <= TOLERANCE:
            raise _refusal(trained, key, difference)


def checked(around: Surroundings, need: Stage) -> Result:
    """What a stage starts from: its files verified by their checksums, and its model by its check."""
    result = around.store.verified(need)
    if CHECK in result.manifest["files"]:
        verify_check(result, regime_of(result).load(around.backbone, result.folder))
    return result


def regime_of(trained: Result) -> Regime:
    """The regime that made a result, and loads it."""
    return open_regime(REGIME_SPEC.validate_python(trained.manifest["spec"]["regime"]))


@torch.inference_mode()
def _outputs(encoder: PreTrainedModel, head: nn.Module | None, example: Example) -> dict[str, Tensor]:
    """On the CPU in fp32: the mean hidden state of each sequence, and the head's logits.

    A head that shares the word embedding gives a loss, not logits, and nothing is predicted with it: it is left out.
    """
    encoder.to("cpu").eval()
    with torch.autocast("cpu", enabled=False):
        hidden = encoder(input_ids=example.input_ids, attention_mask=example.attention_mask).last_hidden_state
        mask = example.attention_mask.unsqueeze(-1)
        found = {"pooled": (hidden * mask).sum(dim=1) / mask.sum(dim=1)}
        if head is not None and not shares_embedding(head):
            logits = head.to("cpu").eval()(hidden)
            found["logits"] = logits * mask if logits.dim() == 3 else logits
    return found


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference in units of the root mean square of what is expected."""
    if found.shape != expected.shape:
        return math.inf
    scale = expected.square().mean().sqrt().clamp(min=1e-12)
    return float((found - expected).abs().max() / scale)


def _refusal(trained: Result, key: str, difference: float) -> UserError:
    what = "logits" if key == "logits" else "hidden states"
    then = trained.manifest.get("provenance", {}).get("packages", {})
    changed = [f"{name} {old}, now {now}" for name, old in then.items() if (now := _version(name)) != old]
    versions = f" It was made with {'; '.join(changed)}." if changed else ""
    return UserError(
        f"{trained.folder} does not give what it gave when it was made: its {what} for {CHECK} are off by "
        f"{difference:.2g} of their size, more than {TOLERANCE:g}.{versions} The backbone or a library computes something "
        f"else than then: use those it was made with, or delete {trained.folder} and run again"
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"

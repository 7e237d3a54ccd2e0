"""The TaskModel: an encoder under some regime, and a head of ours on top."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TypeGuard

from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.models.heads import MaskedLanguageHead


class TaskModel(nn.Module):
    """Hidden states of the encoder through a head to logits.

    forward takes input_ids and attention_mask [batch, tokens] and gives the head's logits; the loss is the
    format's, summed over units, so that micro-batches add up exactly. Under a head that reads the first token
    alone (`first_token_only`), the last layer computes that token alone. A head that shares the word embedding
    is given it, and the labels.
    """

    def __init__(self, encoder: PreTrainedModel, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def head_of(self, task: str) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Tensor:
        return _logits(self.encoder, self.head, input_ids, attention_mask, labels)


class MultiTaskModel(nn.Module):
    """One encoder and a head a task: `task` names the head of a batch; otherwise as TaskModel."""

    def __init__(self, encoder: PreTrainedModel, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)

    def head_of(self, task: str) -> nn.Module:
        return self.heads[task]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, *, task: str) -> Tensor:
        return _logits(self.encoder, self.heads[task], input_ids, attention_mask, labels)


AnyTaskModel = TaskModel | MultiTaskModel


class OfTask(nn.Module):
    """A MultiTaskModel as the TaskModel of one of its tasks."""

    def __init__(self, model: nn.Module, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.model(input_ids, attention_mask, labels, task=self.task)
        return logits


def _logits(
    encoder: PreTrainedModel, head: nn.Module, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None
) -> Tensor:
    with last_layer_of_first_token(encoder) if reads_first_token_only(head) else nullcontext():
        hidden = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return head_logits(encoder, head, hidden, labels)


def head_logits(encoder: PreTrainedModel, head: nn.Module, hidden: Tensor, labels: Tensor | None) -> Tensor:
    """A head's logits for the encoder's last hidden state."""
    extra = (encoder.get_input_embeddings().weight, labels) if shares_embedding(head) else ()
    logits: Tensor = head(hidden, *extra)
    return logits


def reads_first_token_only(head: nn.Module) -> bool:
    """Whether of the last hidden state a head needs the first token's alone."""
    return getattr(head, "first_token_only", False)


def shares_embedding(head: nn.Module) -> TypeGuard[MaskedLanguageHead]:
    """Whether a head predicts pieces by the encoder's own word embedding, which then must stay whole."""
    return isinstance(head, MaskedLanguageHead)


@contextmanager
def last_layer_of_first_token(encoder: PreTrainedModel) -> Iterator[None]:
    """Inside, the encoder's last_hidden_state is [batch, 1, hidden]: the first token's, the same as ever.

    In the last layer the first token asks and all tokens answer, as in cross-attention; queries, output
    projection and feed-forward of the others, five sixths of a layer's work, are never computed.
    """
    layers: Any = encoder.encoder.layer
    handle = layers[-1].attention.register_forward_pre_hook(_ask_for_first_token, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _ask_for_first_token(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    (hidden,), mask = args, kwargs["attention_mask"]
    mask = mask if mask is None else mask[:, :, :1]
    return (hidden[:, :1],), {**kwargs, "attention_mask": mask, "encoder_hidden_states": hidden}

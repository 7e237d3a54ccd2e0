"""The TaskModel: an encoder under some regime, and a head of ours on top."""

from torch import Tensor, nn
from transformers import PreTrainedModel


class TaskModel(nn.Module):
    """Hidden states of the encoder through a head to logits.

    forward takes input_ids and attention_mask [batch, tokens] and gives the head's logits; the loss is the
    format's, summed over units, so that micro-batches add up exactly.
    """

    def __init__(self, encoder: PreTrainedModel, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits: Tensor = self.head(hidden)
        return logits

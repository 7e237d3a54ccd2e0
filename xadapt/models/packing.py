"""Batches of several trainings in one pass of an encoder, end to end instead of padded to the longest.

All that an XLM-R layer does but attention concerns one token at a time. So the tokens of all batches go through the
encoder as a single row; only attention, and what is drawn at random, knows where one batch ends.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.models.xlm_roberta.modeling_xlm_roberta import create_position_ids_from_input_ids

Context = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Part:
    """The next `tokens` of a row belong to module `name`; `own` is entered around what they alone go through."""

    name: str
    tokens: int
    own: Context = nullcontext


# the parts of a row of so many tokens
Parts = Callable[[int], Sequence[Part]]


@dataclass(frozen=True)
class Segment:
    """One batch of a pass: input_ids and attention_mask [rows, tokens] as alone, and the module they go through.

    first_token_only says that of the last layer nothing but the first token is asked for. own is entered around
    whatever draws at random for this batch; None where nothing has draws of its own.
    """

    name: str
    input_ids: Tensor
    attention_mask: Tensor
    first_token_only: bool = False
    own: Context | None = None

    @property
    def rows(self) -> int:
        return len(self.input_ids)

    @property
    def asked(self) -> int:
        """Tokens of a row that the last layer computes."""
        return 1 if self.first_token_only else self.input_ids.shape[1]


class Packing(TorchFunctionMode):
    """Inside this context, an encoder that is given `inputs` computes every segment as it would alone.

    `parts` says whose the tokens of a row are, for routing them to modules.
    """

    def __init__(self, segments: Sequence[Segment], *, device: torch.device) -> None:
        super().__init__()
        self.segments = segments
        self._all = [segment.input_ids.numel() for segment in segments]
        self._asked = [segment.rows * segment.asked for segment in segments]
        # whether there is padding is asked before the masks leave the CPU, so that no pass waits for the device
        self._masks = [_additive_mask(segment.attention_mask, device) for segment in segments]
        self._own_draws = any(segment.own for segment in segments)
        self.device = device

    def parts(self, tokens: int) -> list[Part]:
        """The parts of a row of all tokens, or of those that the last layer is asked for."""
        sizes = self._all if tokens == sum(self._all) else self._asked
        assert tokens == sum(sizes), "a row of neither all tokens nor those asked for"
        return [Part(s.name, size, s.own or nullcontext) for s, size in zip(self.segments, sizes, strict=True)]

    def hidden_states(self, encoder: PreTrainedModel) -> list[Tensor]:
        """The last hidden state of every segment, [rows, tokens, hidden], one token under first_token_only."""
        ids, pad = [segment.input_ids for segment in self.segments], encoder.config.pad_token_id
        positions = [create_position_ids_from_input_ids(each, pad) for each in ids]
        row, position = (torch.cat([t.flatten() for t in each])[None].to(self.device) for each in (ids, positions))
        layers: Any = encoder.encoder.layer
        handle = layers[-1].attention.register_forward_pre_hook(self._ask, with_kwargs=True)
        try:
            with self:
                hidden = encoder(
                    input_ids=row, position_ids=position, attention_mask=torch.ones_like(row),
                    token_type_ids=torch.zeros_like(row),
                ).last_hidden_state  # fmt: skip
        finally:
            handle.remove()
        pieces = zip(self.segments, torch.split(hidden[0], self._asked), strict=True)
        return [piece.reshape(segment.rows, segment.asked, -1) for segment, piece in pieces]

    def _ask(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Let the last layer compute only what is asked for, as `task_model.last_layer_of_first_token` does alone."""
        if self._asked == self._all:
            return args, kwargs
        (hidden,) = args
        chosen, start = [], 0
        for segment, size in zip(self.segments, self._all, strict=True):
            places = torch.arange(start, start + size).view(segment.input_ids.shape)
            chosen.append(places[:, : segment.asked].flatten())
            start += size
        asked = hidden.index_select(1, torch.cat(chosen).to(self.device))
        return (asked,), {**kwargs, "encoder_hidden_states": hidden}

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is functional.dropout and self._own_draws:
            return self._dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """Attention inside each segment: query [1, heads, tokens asked, width] and so on to the query's shape."""
        assert attn_mask is None, "every token of the row is there"
        assert not is_causal, "an encoder looks both ways"
        sizes = [part.tokens for part in self.parts(query.shape[2])]
        queries = torch.split(query.transpose(1, 2)[0], sizes)
        keys, values = (torch.split(tensor.transpose(1, 2)[0], self._all) for tensor in (key, value))
        found = []
        for segment, mask, *batch in zip(self.segments, self._masks, queries, keys, values, strict=True):
            q, k, v = (t.reshape(segment.rows, -1, *t.shape[1:]).transpose(1, 2) for t in batch)
            mask = mask if mask is None else mask[:, :, : q.shape[2]]
            with (segment.own or nullcontext)():
                out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
            found.append(out.transpose(1, 2).flatten(0, 1))
        return joined(found, dim=0)[None].transpose(1, 2)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Dropout of a row, [1, tokens, hidden], drawn for each segment by itself."""
        tokens = input.shape[1]
        if not training or p == 0 or tokens not in (sum(self._all), sum(self._asked)):
            return functional.dropout(input, p, training, inplace)
        parts = self.parts(tokens)
        dropped = []
        for part, piece in zip(parts, torch.split(input, [part.tokens for part in parts], dim=1), strict=True):
            with part.own():
                dropped.append(functional.dropout(piece, p))
        return joined(dropped)


def joined(pieces: Sequence[Tensor], *, dim: int = 1) -> Tensor:
    """The parts of a row one behind the other; a single one is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim=dim)


def routed_alone(name: str) -> Parts:
    """Parts that give every token, of rows of any shape, to one module."""
    return lambda tokens: [Part(name, tokens)]


def _additive_mask(mask: Tensor, device: torch.device) -> Tensor | None:
    """What is added to attention scores, [rows, 1, tokens, tokens]; None without padding."""
    if bool(mask.all()):
        return None
    padding = (mask == 0).to(device)[:, None, None].expand(-1, 1, mask.shape[1], -1)
    return torch.zeros(padding.shape, device=device).masked_fill(padding, torch.finfo(torch.float32).min)

"""A span of a context that answers a question, over windows of long contexts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.data.checks import NOWHERE
from xadapt.formats.features import IGNORED, Features
from xadapt.models.heads import SpanHead
from xadapt.tasks import Task

# Of XTREME's scripts (`run_squad.py`): tokens kept of a question, step of the window over a context, candidates
# for either end, tokens of an answer.
MAX_QUERY_LENGTH, DOC_STRIDE, N_BEST, MAX_ANSWER_LENGTH = 64, 128, 20, 30
START, END = 1, 2  # bits of a token's label; the others of a feature have 0

Offset = tuple[int, int]


@dataclass(frozen=True)
class _Encoded:
    """Texts as token ids with the characters each token covers."""

    ids: list[list[int]]
    offsets: list[list[Offset]]


@dataclass
class _Windows:
    """Features under construction."""

    ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    offsets: list[list[tuple[int, int, bool] | None]] = field(default_factory=list)


class SpanFormat:
    """Extractive question answering as XTREME prepares it: `<s> question </s></s> window </s>`.

    A context longer than the room moves under a window by DOC_STRIDE tokens, each window a feature. A feature that
    does not hold the whole answer, or a question without one, has both ends at `<s>`. An answer only starts in the
    window that shows its first token in the most context, as in BERT's `run_squad.py`.
    """

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        questions = _encode(rows.columns["question"], tokenizer)
        contexts = _encode(rows.columns["context"], tokenizer)
        cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        made = _Windows()
        for i, answers in enumerate(rows.columns["answers"]):
            query = questions.ids[i][: min(MAX_QUERY_LENGTH, max(0, max_length // 2 - 4))]
            before = [cls, *query, sep, sep]
            span = _token_span(answers, contexts.offsets[i])
            for start, stop, mine in _windows(len(contexts.ids[i]), max_length - len(before) - 1):
                made.ids.append([*before, *contexts.ids[i][start:stop], sep])
                made.labels.append(_labels(len(made.ids[-1]), span, start, stop, len(before)))
                made.row.append(i)
                inside = [(a, b, at in mine) for at, (a, b) in enumerate(contexts.offsets[i][start:stop], start)]
                made.offsets.append([*[None] * len(before), *inside, None])
        return Features(made.ids, made.labels, made.row, offsets=made.offsets)

    def head(self, hidden_size: int, task: Task, dropout: float) -> nn.Module:
        return SpanHead(hidden_size)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over features of the mean cross-entropy of start and end, padding left out of the softmax."""
        masked = logits.float().masked_fill((labels == IGNORED).unsqueeze(-1), -torch.inf)
        bits = labels.clamp(min=0)
        starts, ends = (bits & START).argmax(dim=1), (bits & END).argmax(dim=1)
        losses = [
            nn.functional.cross_entropy(masked[..., side], at, reduction="sum")
            for side, at in enumerate((starts, ends))
        ]
        return (losses[0] + losses[1]) / 2

    def units(self, labels: Tensor) -> int:
        return len(labels)

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[str]:
        """The best span's text for each row; empty where no answer scores higher and the task allows that."""
        return [
            "" if rows.no_answer and null > score else context[start:stop].strip()
            for (score, (start, stop), null), context in zip(
                _spans(logits, features, len(rows)), rows.columns["context"], strict=True
            )
        ]

    def confidence(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[float]:
        """How much each row's best span scores above no answer, in logits."""
        return [score - null for score, _, null in _spans(logits, features, len(rows))]

    def references(self, rows: Rows) -> list[list[str]]:
        return [[text for text, _ in answers] for answers in rows.columns["answers"]]


def _spans(logits: Sequence[Tensor], features: Features, rows: int) -> list[tuple[float, Offset, float]]:
    """Of each row the best span's score and characters, and the score of no answer (the least of its windows)."""
    assert features.offsets is not None
    best: list[tuple[float, Offset]] = [(-torch.inf, (0, 0))] * rows
    null = [torch.inf] * rows
    for scores, offsets, row in zip(logits, features.offsets, features.row, strict=True):
        null[row] = min(null[row], float(scores[0].sum()))
        best[row] = max([best[row], *_candidates(scores, offsets)], key=lambda found: found[0])
    return [(score, span, without) for (score, span), without in zip(best, null, strict=True)]


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> _Encoded:
    """Each distinct text tokenised once, without specials."""
    distinct = list(dict.fromkeys(texts))
    found = tokenizer(distinct, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    at = {text: i for i, text in enumerate(distinct)}
    return _Encoded(
        [found["input_ids"][at[text]] for text in texts], [found["offset_mapping"][at[text]] for text in texts]
    )


def _windows(tokens: int, room: int) -> Iterator[tuple[int, int, range]]:
    """Windows of `room` tokens over a context: first, last (exclusive), and the tokens it has most context for."""
    starts = [0]
    while starts[-1] + room < tokens:
        starts.append(starts[-1] + min(room, DOC_STRIDE))
    if len(starts) == 1:
        yield 0, tokens, range(tokens)
        return
    stops = [min(start + room, tokens) for start in starts]
    step = starts[1]
    covering = (range(max(0, (t - room) // step + 1), min(t // step + 1, len(starts))) for t in range(tokens))
    owner = [max(those, key=lambda w: _context(t, starts[w], stops[w])) for t, those in enumerate(covering)]
    for window, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        mine = [t for t in range(start, stop) if owner[t] == window]
        yield start, stop, range(mine[0], mine[-1] + 1) if mine else range(0)


def _context(token: int, start: int, stop: int) -> float:
    """How much context a window gives a token: the smaller side, with a little for the window's length."""
    if not start <= token < stop:
        return -1.0
    return min(token - start, stop - 1 - token) + 0.01 * (stop - start)


def _token_span(answers: Sequence[tuple[str, int]], offsets: Sequence[Offset]) -> tuple[int, int] | None:
    """First and last token of the first answer, or None."""
    if not answers or answers[0][1] == NOWHERE:
        return None
    text, start = answers[0]
    covered = [i for i, (a, b) in enumerate(offsets) if a < start + len(text) and b > start]
    return (covered[0], covered[-1]) if covered else None


def _labels(length: int, span: tuple[int, int] | None, start: int, stop: int, shift: int) -> list[int]:
    labels = [0] * length
    inside = span is not None and start <= span[0] and span[1] < stop
    first, last = (at - start + shift for at in span) if span and inside else (0, 0)
    labels[first] |= START
    labels[last] |= END
    return labels


def _candidates(logits: Tensor, offsets: Sequence[tuple[int, int, bool] | None]) -> list[tuple[float, Offset]]:
    """Score and characters of the likeliest span of one feature among its N_BEST starts and ends, if any."""
    ends = [at for at, offset in enumerate(offsets) if offset]
    first = _best(logits[:, 0], [at for at in ends if offsets[at][2]])  # type: ignore[index]
    last = _best(logits[:, 1], ends)
    length = last[None, :] - first[:, None] + 1
    scores = logits[first, 0][:, None] + logits[last, 1][None, :]
    scores = scores.masked_fill((length < 1) | (length > MAX_ANSWER_LENGTH), -torch.inf)
    if not scores.numel() or scores.max() == -torch.inf:
        return []
    start, end = divmod(int(scores.argmax()), len(last))
    (begin, *_), (_, stop, _) = offsets[int(first[start])], offsets[int(last[end])]  # type: ignore[misc]
    return [(float(scores[start, end]), (begin, stop))]


def _best(scores: Tensor, at: Sequence[int]) -> Tensor:
    """The N_BEST of some positions."""
    positions = torch.tensor(at, dtype=torch.long)
    return positions[scores[positions].topk(min(N_BEST, len(at))).indices]

"""One label a word, predicted at the word's first sub-word; long sentences are split, never truncated."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import IGNORED, Features
from xadapt.models.heads import TaggingHead
from xadapt.tasks import Task


class TaggingFormat:
    """Word tagging as XTREME prepares it, without its truncation (google-research/xtreme issue 90)."""

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        """Encode sentences; one that exceeds max_length becomes several features, cut at word boundaries.

        A word without pieces, or with more than fit into one feature, becomes the unknown token, so that every
        word keeps exactly one predicted position.
        """
        room = max_length - 2
        pieces = _pieces(rows.columns["tokens"], tokenizer, room)
        ids, labels, row = [], [], []
        for i, (words, tags) in enumerate(zip(rows.columns["tokens"], rows.columns["tags"], strict=True)):
            for part_ids, part_labels in _parts([pieces[word] for word in words], tags, room):
                ids.append([tokenizer.cls_token_id, *part_ids, tokenizer.sep_token_id])
                labels.append([IGNORED, *part_labels, IGNORED])
                row.append(i)
        return Features(ids, labels, row)

    def head(self, hidden_size: int, task: Task, dropout: float) -> nn.Module:
        return TaggingHead(hidden_size, len(task.labels), dropout)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        flat = logits.float().flatten(0, 1)
        return nn.functional.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def units(self, labels: Tensor) -> int:
        return int((labels != IGNORED).sum())

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[list[int]]:
        """One label id a word of each row, the parts of split sentences joined again."""
        return [words.argmax(dim=-1).tolist() for words in _words(logits, features, len(rows))]

    def confidence(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[float]:
        """The mean probability of each row's predicted tags."""
        return [float(words.softmax(dim=-1).amax(dim=-1).mean()) for words in _words(logits, features, len(rows))]

    def probabilities(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[list[float]]:
        """The probability of each word's predicted tag."""
        return [words.double().softmax(dim=-1).amax(dim=-1).tolist() for words in _words(logits, features, len(rows))]

    def references(self, rows: Rows) -> list[list[int]]:
        return list(rows.columns["tags"])


def _words(logits: Sequence[Tensor], features: Features, rows: int) -> list[Tensor]:
    """Logits [words, labels] of each row, from the first piece of every word."""
    assert features.labels is not None
    parts: list[list[Tensor]] = [[] for _ in range(rows)]
    for feature_logits, labels, row in zip(logits, features.labels, features.row, strict=True):
        parts[row].append(feature_logits[torch.tensor(labels) != IGNORED])
    return [torch.cat(part) for part in parts]


def _pieces(sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerFast, room: int) -> dict[str, list[int]]:
    """Token ids of each distinct word, tokenised once."""
    words = sorted({word for sentence in sentences for word in sentence})
    encoded = tokenizer(words, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    unknown = [tokenizer.unk_token_id]
    return {word: ids if 0 < len(ids) <= room else unknown for word, ids in zip(words, encoded, strict=True)}


def _parts(words: Sequence[list[int]], tags: Sequence[int], room: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cut one sentence into runs of whole words of at most `room` tokens: ids and labels of each."""
    ids: list[int] = []
    labels: list[int] = []
    for word, tag in zip(words, tags, strict=True):
        if len(ids) + len(word) > room:
            yield ids, labels
            ids, labels = [], []
        ids += word
        labels += [tag, *[IGNORED] * (len(word) - 1)]
    yield ids, labels

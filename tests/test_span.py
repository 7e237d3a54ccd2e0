"""Extractive question answering: windows, labels, loss and decoding against plain restatements of their rules."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import HIDDEN
from torch import Tensor
from transformers import PreTrainedTokenizerFast, XLMRobertaForQuestionAnswering

from xadapt.data.rows import Rows
from xadapt.formats import FORMATS, Features
from xadapt.formats.features import collate
from xadapt.formats.span import DOC_STRIDE, MAX_ANSWER_LENGTH, MAX_QUERY_LENGTH
from xadapt.models.backbone import Backbone
from xadapt.tasks import get_task

FORM = FORMATS["span"]
WORDS = [
    "the",
    "market",
    "school",
    "doctor",
    "sells",
    "seven",
    "red",
    "apples",
    "in",
    "park",
    "old",
    "teacher",
    "buys",
    "new",
    "car",
    "at",
    "night",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone: Path) -> PreTrainedTokenizerFast:
    return Backbone(str(tiny_backbone)).tokenizer


def text(words: int, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (words,), generator=generator).tolist())


def rows(contexts: Sequence[str], answers: Sequence[list[tuple[str, int]]], *, task: str = "squad", question: str = "who sells apples") -> Rows:  # fmt: skip
    n = len(contexts)
    columns = {"id": [str(i) for i in range(n)], "context": contexts, "question": [question] * n, "answers": answers}
    return Rows(task, "en", "validation", columns, "test", "test", no_answer=task == "squad_v2")


def answer(context: str, word: int, words: int) -> tuple[str, int]:
    """The answer of `words` words from number `word` on."""
    parts = context.split(" ")
    return " ".join(parts[word : word + words]), len(" ".join([*parts[:word], ""]))


def encode(data: Rows, tokenizer: PreTrainedTokenizerFast, max_length: int = 384) -> Features:
    return FORM.encode(data, get_task(data.task), tokenizer, max_length)


def right(features: Features) -> list[Tensor]:
    """Logits that put both ends where the labels have them."""
    assert features.labels is not None
    bits = [torch.tensor(labels) for labels in features.labels]
    return [torch.stack([(b & 1 > 0) * 9.0, (b & 2 > 0) * 9.0], dim=1) for b in bits]


@pytest.mark.parametrize("words", [5, 60, 400])
def test_windows_cover_the_context_and_each_token_is_offered_once(
    words: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    context = text(words, seed=words)
    features = encode(rows([context], [[]]), tokenizer, max_length=200)
    query = tokenizer("who sells apples", add_special_tokens=False)["input_ids"]
    whole = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    room, starts = 200 - len(query) - 4, [0]
    while starts[-1] + room < len(whole["input_ids"]):
        starts.append(starts[-1] + DOC_STRIDE)
    assert features.input_ids == [[0, *query, 2, 2, *whole["input_ids"][s : s + room], 2] for s in starts]
    assert features.offsets is not None
    offered = [offset[:2] for offsets in features.offsets for offset in offsets if offset and offset[2]]
    assert offered == whole["offset_mapping"]


def test_a_token_is_offered_where_it_has_most_context(tokenizer: PreTrainedTokenizerFast) -> None:
    features = encode(rows([text(500, seed=1)], [[]]), tokenizer, max_length=250)
    assert features.offsets is not None
    assert len(features) > 3
    middle = features.offsets[1]
    before = len(tokenizer("who sells apples", add_special_tokens=False)["input_ids"]) + 3
    inside = [at - before for at, offset in enumerate(middle) if offset and offset[2]]
    room = 250 - before - 1
    # neighbours overlap in room - DOC_STRIDE tokens, of which each gets the half nearer to its middle
    assert abs(inside[0] - (room - DOC_STRIDE) / 2) <= 1
    assert abs(room - 1 - inside[-1] - (room - DOC_STRIDE) / 2) <= 1


def test_long_questions_are_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    data = rows([text(60, seed=3)], [[]], question=text(200, seed=2))
    assert encode(data, tokenizer).input_ids[0].index(2) == MAX_QUERY_LENGTH + 1
    for max_length in (8, 16, 64):  # room is left for the context however short the features
        features = encode(data, tokenizer, max_length)
        assert max(map(len, features.input_ids)) == max_length
        assert features.offsets is not None
        assert all(any(offsets) for offsets in features.offsets)


@pytest.mark.parametrize("max_length", [220, 300, 384])
def test_right_logits_decode_to_the_answers(max_length: int, tokenizer: PreTrainedTokenizerFast) -> None:
    contexts = [text(20 + 7 * i, seed=i) for i in range(40)]
    answers = [[answer(context, (5 * i) % (15 + 6 * i), 1 + i % 3)] for i, context in enumerate(contexts)]
    data = rows(contexts, answers)
    features = encode(data, tokenizer, max_length)
    assert FORM.decode(right(features), features, data) == [found[0][0] for found in answers]
    assert FORM.references(data) == [[found[0][0]] for found in answers]


def test_labels_outside_the_window_point_to_the_first_token(tokenizer: PreTrainedTokenizerFast) -> None:
    context = text(300, seed=4)
    features = encode(rows([context, context], [[answer(context, 298, 1)], []]), tokenizer, max_length=200)
    assert features.labels is not None
    both = [labels[0] == 3 and not any(labels[1:]) for labels in features.labels]  # type: ignore[index]
    last = max(at for at, row in enumerate(features.row) if row == 0)
    assert [at for at, none in enumerate(both) if not none] == [last]
    assert last > 0
    assert len(both) == 2 * (last + 1)


def test_the_loss_is_that_of_transformers_and_padding_does_not_matter(
    tiny_backbone: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.manual_seed(0)
    model = XLMRobertaForQuestionAnswering.from_pretrained(tiny_backbone).eval()
    contexts = [text(n, seed=n) for n in (12, 30, 55)]
    features = encode(rows(contexts, [[answer(c, 3, 2)] for c in contexts]), tokenizer)
    assert features.labels is not None
    alone, units = 0.0, 0
    for i, labels in enumerate(features.labels):
        batch = collate(features, [i], 1)
        start, end = (torch.tensor([next(at for at, bit in enumerate(labels) if bit & side)]) for side in (1, 2))  # type: ignore[arg-type]
        ids, mask = batch["input_ids"], batch["attention_mask"]
        alone += model(input_ids=ids, attention_mask=mask, start_positions=start, end_positions=end).loss.item()
        units += FORM.units(batch["labels"])
    batch = collate(features, range(3), 1)
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    together = FORM.loss(torch.stack([out.start_logits, out.end_logits], dim=-1), batch["labels"])
    assert together.item() == pytest.approx(alone, rel=1e-5)
    assert units == FORM.units(batch["labels"]) == 3


def test_the_best_span_is_the_best_of_all_pairs(tokenizer: PreTrainedTokenizerFast) -> None:
    contexts = [text(n, seed=10 + n) for n in range(4, 16)]
    data = rows(contexts, [[] for _ in contexts])
    features = encode(data, tokenizer)
    torch.manual_seed(1)
    logits = [torch.randn(len(ids), 2) for ids in features.input_ids]
    assert features.offsets is not None
    for found, scores, offsets, context in zip(FORM.decode(logits, features, data), logits, features.offsets, contexts, strict=True):  # fmt: skip
        inside = [at for at, offset in enumerate(offsets) if offset]
        pairs = [(a, b) for a, b in product(inside, inside) if a <= b < a + MAX_ANSWER_LENGTH]
        first, last = max(pairs, key=lambda pair: float(scores[pair[0], 0] + scores[pair[1], 1]))
        assert found == context[offsets[first][0] : offsets[last][1]].strip()  # type: ignore[index]


def test_only_a_task_with_unanswerable_questions_answers_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    contexts = [text(400, seed=6), text(10, seed=7)]
    for task, expected in (("squad", True), ("squad_v2", False)):
        data = rows(contexts, [[], []], task=task)
        features = encode(data, tokenizer, 200)
        found = FORM.decode([logits + 0.1 for logits in right(features)], features, data)
        assert [bool(prediction) for prediction in found] == [expected] * 2


def test_one_window_with_an_answer_is_enough(tokenizer: PreTrainedTokenizerFast) -> None:
    context = text(400, seed=8)
    data = rows([context], [[answer(context, 200, 2)]], task="squad_v2")
    features = encode(data, tokenizer, 200)
    assert len(features) > 2
    assert FORM.decode(right(features), features, data) != [""]


def test_the_head_gives_two_logits_a_token() -> None:
    head = FORM.head(HIDDEN, get_task("squad"), 0.1)
    assert head is not None
    assert head(torch.zeros(3, 7, HIDDEN)).shape == (3, 7, 2)

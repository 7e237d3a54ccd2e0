"""Each format against the tokenizer's own answer, and every prediction back at its word, label or pair."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import normalizers, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.data.sources import EmbeddedSource
from xadapt.formats import FORMATS, Features
from xadapt.formats.features import IGNORED, collate
from xadapt.models.backbone import Backbone
from xadapt.models.heads import MaskedLanguageHead
from xadapt.tasks import TASKS, get_task
from xadapt.tasks.spec import Split

BOS, PAD, EOS, UNK = 0, 1, 2, 3
XNLI, UDPOS, TATOEBA = get_task("xnli"), get_task("udpos"), get_task("tatoeba")
BY_FORMAT = {
    "classification": XNLI, "tagging": UDPOS, "span": TASKS["xquad"], "choice": TASKS["hellaswag"], "retrieval": TATOEBA,
    "mining": TASKS["bucc2018"], "mlm": TASKS["mlm"],
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone: Path) -> PreTrainedTokenizerFast:
    return Backbone(str(tiny_backbone)).tokenizer


@pytest.fixture
def xlm_r_like(tiny_backbone: Path) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with XLM-R's own handling of white space: zero-width signs become spaces, spaces nothing."""
    tokenizer = Backbone(str(tiny_backbone)).tokenizer
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    return tokenizer


def suite(task: str, lang: str, limit: int) -> Rows:
    found = get_task(task)
    split: Split = "test" if "test" in found.splits else "validation"
    return EmbeddedSource().load(found, lang if split == "test" else "en", split, limit=limit)


def tagged(sentences: list[list[str]], tags: list[list[int]] | None = None) -> Rows:
    """Tagging rows; without tags every word gets another one than its neighbours."""
    tags = tags or [[(5 * i + j) % len(UDPOS.labels) for j in range(len(words))] for i, words in enumerate(sentences)]
    return Rows("udpos", "en", "test", {"tokens": sentences, "tags": tags}, "made up", "made up")


def encode(tokenizer: PreTrainedTokenizerFast, rows: Rows, max_length: int = 128) -> Features:
    task = get_task(rows.task)
    return FORMATS[task.format].encode(rows, task, tokenizer, max_length)


def words_of(features: Features) -> list[list[tuple[int, list[int]]]]:
    """Label and pieces of each word of each tagging feature, read off the positions that carry a label."""
    assert features.labels is not None
    found = []
    for ids, labels in zip(features.input_ids, features.labels, strict=True):
        assert len(ids) == len(labels)
        assert (ids[0], ids[-1], labels[0], labels[-1]) == (BOS, EOS, IGNORED, IGNORED)
        words: list[tuple[int, list[int]]] = []
        for piece, label in zip(ids[1:-1], labels[1:-1], strict=True):
            if label != IGNORED:
                words.append((label, []))
            words[-1][1].append(piece)
        found.append(words)
    return found


# classification


@pytest.mark.parametrize("lang", ["en", "sw", "zh"])
def test_pairs_are_encoded_as_the_tokenizer_does(lang: str, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = suite("xnli", lang, 30)
    features = encode(tokenizer, rows)
    assert list(features.labels or []) == list(rows.columns["label"])
    assert list(features.row) == list(range(30))
    for ids, a, b in zip(features.input_ids, rows.columns["text_a"], rows.columns["text_b"], strict=True):
        assert ids == tokenizer(a, b)["input_ids"]
        first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (a, b))
        assert ids == [BOS, *first, EOS, EOS, *second, EOS]


def test_the_longer_text_of_a_pair_is_truncated_first(tokenizer: PreTrainedTokenizerFast) -> None:
    long, short = "the old woman gave three books to the doctor " * 9, "a child sleeps"
    columns = {"text_a": [long, short, long], "text_b": [short, long, long], "label": [0, 1, 2]}
    features = encode(tokenizer, Rows("xnli", "en", "test", columns, "made up", "made up"), max_length=40)
    whole, brief = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (long, short))
    assert len(brief) < 18 < len(whole), "the limit lies between"
    room = 36 - len(brief)
    assert features.input_ids[0] == [BOS, *whole[:room], EOS, EOS, *brief, EOS]
    assert features.input_ids[1] == [BOS, *brief, EOS, EOS, *whole[:room], EOS]
    assert features.input_ids[2] == [BOS, *whole[:18], EOS, EOS, *whole[:18], EOS]


# tagging


@pytest.mark.parametrize("lang", ["en", "de", "zh", "ar"])
def test_the_label_stands_at_the_first_piece_of_its_word(lang: str, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = suite("udpos", lang, 25)
    features = encode(tokenizer, rows)
    sentences, tags = rows.columns["tokens"], rows.columns["tags"]
    several = 0
    for ids, labels, words, gold in zip(features.input_ids, features.labels or [], sentences, tags, strict=True):
        theirs = tokenizer(words, is_split_into_words=True)
        assert ids == theirs["input_ids"]
        owners = theirs.word_ids()
        for at, (owner, label) in enumerate(zip(owners, labels, strict=True)):
            first = owner is not None and owner != owners[at - 1]
            assert label == (gold[owner] if first else IGNORED)
        several += len(ids) - 2 > len(words)
    assert several, "no word had more than one piece: nothing was tested"


def test_a_long_sentence_is_split_at_words_and_joined_again(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    vocabulary = sorted({word for words in suite("udpos", "en", 60).columns["tokens"] for word in words})
    words = [rng.choice(vocabulary) for _ in range(400)]
    tags = [rng.randrange(len(UDPOS.labels)) for _ in words]
    rows = tagged([["short"], words, ["last"]], [[0], tags, [1]])
    features = encode(tokenizer, rows, max_length=32)
    parts = [part for row, part in zip(features.row, words_of(features), strict=True) if row == 1]
    pieces = [tokenizer([word], add_special_tokens=False)["input_ids"][0] for word in words]
    assert [word for part in parts for word in part] == list(zip(tags, pieces, strict=True)), "all words, in order"
    sizes = [sum(len(ids) for _, ids in part) for part in parts]
    assert max(sizes) <= 30
    assert all(size + len(after[0][1]) > 30 for size, after in zip(sizes, parts[1:], strict=False)), "parts are full"
    assert len(parts) > 13
    decoded = FORMATS["tagging"].decode(oracle("tagging", features, rows), features, rows)
    assert [len(row) for row in decoded] == [1, 400, 1]
    assert decoded == rows.columns["tags"]


def test_a_sentence_that_just_fits_is_not_split(tokenizer: PreTrainedTokenizerFast) -> None:
    words = suite("udpos", "en", 1).columns["tokens"][0]
    rows = tagged([words])
    exact = len(tokenizer(words, is_split_into_words=True)["input_ids"])
    assert encode(tokenizer, rows, max_length=exact).lengths == [exact]
    assert len(encode(tokenizer, rows, max_length=exact - 1)) == 2


@pytest.mark.parametrize("nothing", ["\u200b", "\ufeff", "\u3000", " ", "\t", ""])
def test_a_word_without_pieces_becomes_unknown(nothing: str, xlm_r_like: PreTrainedTokenizerFast) -> None:
    assert xlm_r_like([nothing], add_special_tokens=False)["input_ids"] == [[]], "the word must have no pieces"
    rows = tagged([[nothing, "dog", nothing], [nothing]], [[3, 7, 5], [11]])
    features = encode(xlm_r_like, rows)
    dog = xlm_r_like(["dog"], add_special_tokens=False)["input_ids"][0]
    assert words_of(features) == [[(3, [UNK]), (7, dog), (5, [UNK])], [(11, [UNK])]]
    assert FORMATS["tagging"].decode(oracle("tagging", features, rows), features, rows) == [[3, 7, 5], [11]]


def test_a_word_of_too_many_pieces_becomes_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    def longest(count: int) -> str:
        """A word of exactly this many pieces: a rare letter, repeated."""
        word = "ß" * (count - 1)
        while len(tokenizer([word], add_special_tokens=False)["input_ids"][0]) < count:
            word += "q"
        return word

    fits, too_long = longest(14), longest(15) * 20
    rows = tagged([["dog", fits, too_long, "cat"]], [[0, 1, 2, 3]])
    features = encode(tokenizer, rows, max_length=16)
    parts = words_of(features)
    labels = [label for part in parts for label, _ in part]
    assert labels == [0, 1, 2, 3]
    pieces = {label: ids for part in parts for label, ids in part}
    assert len(pieces[1]) == 14
    assert pieces[2] == [UNK]
    assert max(features.lengths) <= 16
    assert FORMATS["tagging"].decode(oracle("tagging", features, rows), features, rows) == [[0, 1, 2, 3]]


def test_predictions_at_other_positions_do_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = suite("udpos", "en", 20)
    features = encode(tokenizer, rows)
    logits = oracle("tagging", features, rows)
    for feature, labels in zip(logits, features.labels or [], strict=True):
        feature[torch.tensor(labels) == IGNORED] = torch.randn(len(UDPOS.labels)) * 100
    assert FORMATS["tagging"].decode(logits, features, rows) == rows.columns["tags"]


# loss and units


def test_classification_loss_is_the_sum_over_rows() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    by_hand = sum(-logits[i].softmax(0)[label].log() for i, label in enumerate(labels.tolist()))
    form = FORMATS["classification"]
    assert form.units(labels) == 6
    torch.testing.assert_close(form.loss(logits, labels), torch.as_tensor(by_hand))
    halves = form.loss(logits[:2], labels[:2]) + form.loss(logits[2:], labels[2:])
    torch.testing.assert_close(form.loss(logits, labels), halves)


def test_tagging_loss_leaves_out_padding_and_later_pieces(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    rows = suite("udpos", "en", 8)
    features = encode(tokenizer, rows)
    batch = collate(features, range(8), PAD)
    logits = torch.randn(*batch["labels"].shape, len(UDPOS.labels))
    by_hand = sum(
        -logits[i, at].log_softmax(0)[label]
        for i, labels in enumerate(features.labels or [])
        for at, label in enumerate(labels)
        if label != IGNORED
    )
    form = FORMATS["tagging"]
    assert form.units(batch["labels"]) == sum(map(len, rows.columns["tags"]))
    assert features.lengths != [max(features.lengths)] * 8, "the batch has padding"
    torch.testing.assert_close(form.loss(logits, batch["labels"]), torch.as_tensor(by_hand))


def test_loss_is_computed_in_float32() -> None:
    logits = torch.randn(4, 3, dtype=torch.bfloat16)
    assert FORMATS["classification"].loss(logits, torch.tensor([0, 1, 2, 0])).dtype == torch.float32
    assert FORMATS["tagging"].loss(logits[None], torch.tensor([[0, 1, IGNORED, 2]])).dtype == torch.float32


# round trip


def oracle(format: str, features: Features, rows: Rows) -> list[Tensor]:
    """Logits of a model that knows the answers."""
    task = BY_FORMAT[format]
    generator = torch.Generator().manual_seed(0)
    if format == "retrieval":
        pairs = torch.nn.functional.normalize(torch.randn(len(rows), 64, generator=generator), dim=1)
        return [*pairs, *pairs]
    found: list[Tensor] = []
    for label in features.labels or []:
        at = torch.tensor(label)
        if format == "span":
            found.append(torch.stack([50.0 * (at & side > 0) for side in (1, 2)], dim=-1))
            continue
        logits = torch.randn(*at.shape, len(task.labels), generator=generator)
        found.append(logits + 50 * torch.nn.functional.one_hot(at.clamp(min=0), len(task.labels)))
    return found


# mining and mlm, which has no references, have their own tests; span's windows of 16 tokens would lose answers
@pytest.mark.parametrize(
    ("format", "max_length"),
    [
        (name, length)
        for name in FORMATS
        for length in (16, 384)
        if name not in ("mining", "mlm") and (name, length) != ("span", 16)
    ],
)
@pytest.mark.parametrize("lang", ["de", "hi"])
def test_right_logits_decode_to_the_references(
    format: str, lang: str, max_length: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = suite(BY_FORMAT[format].name, lang, 40)
    features = encode(tokenizer, rows, max_length)
    assert max(map(len, features.input_ids)) <= max_length
    form, logits = FORMATS[format], oracle(format, features, rows)
    decoded, references = form.decode(logits, features, rows), form.references(rows)
    right = [
        found in gold if format == "span" else found == gold for found, gold in zip(decoded, references, strict=True)
    ]
    assert all(right)
    assert len(decoded) == len(form.confidence(logits, features, rows)) == len(rows)


def test_every_task_has_a_format_that_gives_it_a_head() -> None:
    assert {task.format for task in TASKS.values()} == set(FORMATS) == set(BY_FORMAT)
    for task in TASKS.values():
        if task.open_labels:  # they come with the rows
            task = task.model_copy(update={"labels": ("N", "NP")})
        head = FORMATS[task.format].head(32, task, 0.1)
        assert (head is None) == (not task.trains)
        if isinstance(head, MaskedLanguageHead):
            head.fit_to(torch.nn.Embedding(9, 32))
            assert head(torch.randn(2, 5, 32), torch.randn(9, 32), torch.arange(10).view(2, 5) - 2).shape == (2, 5, 2)
        elif head is not None:
            sequences = 2 * (len(task.labels) if task.format == "choice" else 1)
            outputs = head(torch.randn(sequences, 5, 32))
            assert (len(outputs), outputs.shape[-1]) == (2, len(task.labels) if task.labels else 2)


# collate


def test_collate_pads_to_the_longest_of_the_batch() -> None:
    features = Features([[0, 9, 2], [0, 8, 7, 6, 2], [0, 2]], [[-100, 4, -100], [-100, 1, -100, 2, -100], [-100, -100]], [0, 1, 2])  # fmt: skip
    batch = collate(features, [2, 0], PAD)
    assert batch["input_ids"].tolist() == [[0, 2, 1], [0, 9, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[-100, -100, -100], [-100, 4, -100]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.long}
    assert collate(features, [1, 2], PAD)["input_ids"].shape == (2, 5)


def test_collate_masks_by_length_not_by_token() -> None:
    batch = collate(Features([[0, PAD, 2], [0, 2]], None, [0, 1]), [0, 1], PAD)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_collate_keeps_one_label_a_row_and_none_at_all() -> None:
    ids = [[0, 5, 2], [0, 2]]
    assert collate(Features(ids, [2, 1], [0, 1]), [1, 0], PAD)["labels"].tolist() == [1, 2]
    assert "labels" not in collate(Features(ids, None, [0, 1]), [1, 0], PAD)


# retrieval


def test_retrieval_encodes_foreign_then_english(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = suite("tatoeba", "de", 10)
    features = encode(tokenizer, rows, max_length=24)
    texts = [*rows.columns["source"], *rows.columns["target"]]
    assert features.input_ids == [tokenizer(text, truncation=True, max_length=24)["input_ids"] for text in texts]
    assert features.labels is None
    assert list(features.row) == [*range(10), *range(10)]


@pytest.mark.parametrize("arrange", [list, lambda order: order[::-1], lambda order: [*order[1:], order[0]]])
def test_retrieval_finds_the_nearest_foreign_sentence(arrange: Callable[[list[int]], list[int]]) -> None:
    rng = np.random.default_rng(0)
    english = rng.normal(size=(50, 16)).astype(np.float32)
    order = arrange(list(range(50)))
    foreign = english[order] + 0.05 * rng.normal(size=(50, 16)).astype(np.float32)
    unit: Any = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (foreign, english)]
    rows = Rows("tatoeba", "de", "test", {"source": [""] * 50, "target": [""] * 50}, "made up", "made up")
    logits = [torch.tensor(vector) for vectors in unit for vector in vectors]
    decoded = FORMATS["retrieval"].decode(logits, Features([[]] * 100, None, [*range(50), *range(50)]), rows)
    cosines = np.array([[e @ f for f in unit[0]] for e in unit[1]])
    assert list(decoded) == cosines.argmax(axis=1).tolist()
    assert [order[found] for found in decoded] == list(range(50))

"""Multiple choice: the choices of a row side by side, one softmax a row, whatever the batch."""

from pathlib import Path

import pytest
import torch
from conftest import HIDDEN

from xadapt.data.rows import Rows
from xadapt.formats import FORMATS, Features
from xadapt.formats.features import collate
from xadapt.models.backbone import Backbone
from xadapt.models.heads import ChoiceHead
from xadapt.models.task_model import TaskModel
from xadapt.tasks import get_task
from xadapt.training.batching import micro_batches
from xadapt.training.prediction import predict_logits

FORM, TASK = FORMATS["choice"], get_task("hellaswag")
PROMPTS = ["the doctor", "a farmer sells old apples in the park", "the teacher"]
STEMS = ["buys", "", "counts"]
CHOICES = [["a car", "seven old red apples", "it", "no"], ["a", "b c", "d", "e f g"], ["x", "y", "z", "w"]]
ROWS = Rows(
    "hellaswag", "en", "train", {"prompt": PROMPTS, "stem": STEMS, "choices": CHOICES, "label": [2, 0, 3]}, "", ""
)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def features(backbone: Backbone) -> Features:
    return FORM.encode(ROWS, TASK, backbone.tokenizer, 64)


def test_each_choice_is_a_pair_with_the_prompt(backbone: Backbone, features: Features) -> None:
    pairs = [
        (prompt, f"{stem} {choice}".strip())
        for prompt, stem, choices in zip(PROMPTS, STEMS, CHOICES, strict=True)
        for choice in choices
    ]
    assert features.input_ids == [backbone.tokenizer(a, b)["input_ids"] for a, b in pairs]
    assert (len(features), features.labels, list(features.row)) == (3, [2, 0, 3], [0, 1, 2])
    longest = [max(len(ids) for ids in features.input_ids[at : at + 4]) for at in (0, 4, 8)]
    assert features.lengths == [4 * n for n in longest]


def test_long_prompts_are_cut_before_their_choices(backbone: Backbone) -> None:
    long = Rows("hellaswag", "en", "train", {**ROWS.columns, "prompt": [" ".join(PROMPTS * 9)] * 3}, "", "")
    cut = FORM.encode(long, TASK, backbone.tokenizer, 40)
    assert max(map(len, cut.input_ids)) == 40
    for ids, choice in zip(cut.input_ids[4:8], CHOICES[1], strict=True):
        tail = backbone.tokenizer(choice, add_special_tokens=False)["input_ids"]
        assert ids[-len(tail) - 1 : -1] == tail


@pytest.mark.parametrize("budget", [1, 200, 10_000])
def test_a_rows_choices_stay_together(budget: int, features: Features, backbone: Backbone) -> None:
    torch.manual_seed(0)
    model = TaskModel(backbone.encoder(), ChoiceHead(HIDDEN, 4, 0.1)).eval()
    found = predict_logits(model, features, pad_token_id=1, token_budget=budget, device=torch.device("cpu"))
    alone = [
        model(torch.tensor([ids]).repeat(4, 1), torch.ones(4, len(ids), dtype=torch.long))[0, 0].item()
        for ids in features.input_ids
    ]
    torch.testing.assert_close(torch.stack(found).flatten(), torch.tensor(alone), rtol=0, atol=1e-5)
    for indices in micro_batches(range(3), features.lengths, token_budget=budget):
        ids = collate(features, indices, 1)["input_ids"]
        assert len(ids) == 4 * len(indices)
        assert len(indices) == 1 or ids.numel() <= budget


def test_the_loss_is_one_softmax_a_row_and_decoding_its_best(features: Features) -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0, 0.5], [2.0, 0.0, 0.1, 0.0], [0.0, 4.0, 0.0, 1.0]])
    labels = torch.tensor([2, 0, 3])
    expected = -sum(torch.log_softmax(row, 0)[label] for row, label in zip(logits, labels, strict=True))
    torch.testing.assert_close(FORM.loss(logits, labels), expected)
    assert FORM.units(labels) == 3
    assert FORM.decode(list(logits), features, ROWS) == [2, 0, 1]
    assert FORM.references(ROWS) == [2, 0, 3]

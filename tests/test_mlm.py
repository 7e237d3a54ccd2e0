"""Masked language modelling: what is hidden, the head against transformers' own, and a training from raw text."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from silent_reporter import Silent
from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaForMaskedLM

from xadapt.data import open_source
from xadapt.data.rows import Rows
from xadapt.data.sources import EmbeddedSource
from xadapt.errors import UserError
from xadapt.evaluation.zero_shot import model_predictor, score_language
from xadapt.formats import FORMATS, Features
from xadapt.formats.features import IGNORED, collate
from xadapt.formats.masking import Masking
from xadapt.models import heads
from xadapt.models.backbone import Backbone, start_language_head
from xadapt.models.task_model import TaskModel
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec
from xadapt.study.executors import run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt.tasks import get_task

MLM, FORM, PAD = get_task("mlm"), FORMATS["mlm"], 1
SPECIALS = (0, 1, 2, 3, 4)
MASKING = Masking(4, 1000, SPECIALS)


def rows(lang: str = "sw", split: Any = "train", limit: int = 12) -> Rows:
    return EmbeddedSource().load(MLM, lang, split, limit=limit)


def encode(of: Rows, backbone: Backbone, max_length: int = 64) -> Features:
    return FORM.encode(of, MLM, backbone.tokenizer, max_length)


@pytest.fixture(scope="module")
def whole(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, XLMRobertaForMaskedLM]:
    """A checkpoint with the language model head that XLM-R's own have, and transformers' model of it."""
    folder = tmp_path_factory.mktemp("with-head")
    torch.manual_seed(1)
    model = XLMRobertaForMaskedLM(XLMRobertaConfig.from_pretrained(tiny_backbone)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(folder)
    return Backbone(str(folder)), model


def language_model(backbone: Backbone) -> TaskModel:
    encoder = backbone.encoder()
    torch.manual_seed(0)
    head = FORM.head(encoder.config.hidden_size, MLM, 0.0)
    assert isinstance(head, heads.MaskedLanguageHead)
    start_language_head(head, encoder, backbone.folder)
    return TaskModel(encoder, head).eval()


# what is hidden


def test_fifteen_percent_are_hidden_most_by_the_mask() -> None:
    ids = [0, *range(5, 1000), 2, *range(5, 1000), 2]
    tokens = hidden = 0
    became: Counter[str] = Counter()
    for draw in range(60):
        seen, predicted = MASKING.disguise(ids, (7, draw))
        assert (seen[~predicted] == np.array(ids)[~predicted]).all()
        assert not predicted[[0, 996, -1]].any(), "a special token was chosen"
        tokens, hidden = tokens + len(ids) - 3, hidden + int(predicted.sum())
        for now, true in zip(seen[predicted], np.array(ids)[predicted], strict=True):
            became["mask" if now == 4 else "same" if now == true else "other"] += 1
            assert now == 4 or now not in SPECIALS
    # 119,400 tokens: five standard deviations of a binomial draw
    assert hidden / tokens == pytest.approx(0.15, abs=5 * math.sqrt(0.15 * 0.85 / tokens))
    for what, share in (("mask", 0.8), ("same", 0.1), ("other", 0.1)):
        assert became[what] / hidden == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / hidden)), what


def test_a_short_line_has_one_hidden_token_and_special_tokens_none() -> None:
    for draw in range(50):
        assert MASKING.disguise([0, 77, 2], (draw,))[1].tolist() == [False, True, False]
        assert not MASKING.disguise([0, 3, 2], (draw,))[1].any()


def test_what_is_hidden_depends_on_draw_and_feature_alone(tiny_backbone: Path) -> None:
    features = encode(rows(), Backbone(str(tiny_backbone)))
    together = collate(features, [3, 1, 2], PAD, draw=(0, 5))
    for at, i in enumerate([3, 1, 2]):
        alone = collate(features, [i], PAD, draw=(0, 5))
        length = len(features.input_ids[i])
        for name in ("input_ids", "labels"):
            assert torch.equal(alone[name][0], together[name][at, :length]), name
    other = collate(features, [3, 1, 2], PAD, draw=(0, 6))
    assert not torch.equal(other["labels"], together["labels"])


def test_hidden_tokens_carry_the_truth(tiny_backbone: Path) -> None:
    features = encode(rows(), Backbone(str(tiny_backbone)))
    batch = collate(features, range(len(features)), PAD)
    assert FORM.units(batch["labels"]) == int((batch["labels"] != IGNORED).sum()) > len(features)
    for i, ids in enumerate(features.input_ids):
        labels = batch["labels"][i, : len(ids)]
        true, seen = torch.tensor(list(ids)), batch["input_ids"][i, : len(ids)]
        assert torch.equal(labels[labels != IGNORED], true[labels != IGNORED])
        assert torch.equal(seen[labels == IGNORED], true[labels == IGNORED])


def test_a_long_line_is_cut_and_nothing_of_it_lost(tiny_backbone: Path) -> None:
    backbone = Backbone(str(tiny_backbone))
    long, short = encode(rows(), backbone, 512), encode(rows(), backbone, 16)
    assert max(map(len, short.input_ids)) == 16
    for i in range(12):
        joined = [t for ids, row in zip(short.input_ids, short.row, strict=True) if row == i for t in ids[1:-1]]
        assert joined == list(long.input_ids[i][1:-1])


# the head


def test_losses_are_those_of_transformers(whole: tuple[Backbone, XLMRobertaForMaskedLM]) -> None:
    backbone, reference = whole
    batch = collate(encode(rows(), backbone), range(12), PAD)
    with torch.no_grad():
        scores = language_model(backbone)(**batch)
        expected = reference(**{**batch, "labels": batch["labels"]})
    units = FORM.units(batch["labels"])
    assert (FORM.loss(scores, batch["labels"]) / units).item() == pytest.approx(expected.loss.item(), rel=1e-5)
    hidden = batch["labels"] != IGNORED
    right = expected.logits.argmax(dim=-1)[hidden] == batch["labels"][hidden]
    assert torch.equal(scores[hidden][:, 1] > 0, right)
    assert (scores[~hidden] == torch.tensor([0.0, -1.0])).all()


def test_tokens_in_runs_give_the_same_loss_and_gradient(
    whole: tuple[Backbone, XLMRobertaForMaskedLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, _ = whole
    batch = collate(encode(rows(), backbone), range(12), PAD)

    def gradients() -> dict[str, torch.Tensor]:
        model = language_model(backbone)
        FORM.loss(model(**batch), batch["labels"]).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    at_once = gradients()
    monkeypatch.setattr(heads, "TOKENS_AT_ONCE", 5)
    in_runs = gradients()
    assert at_once.keys() == in_runs.keys() >= {"head.bias", "encoder.embeddings.word_embeddings.weight"}
    for name, gradient in at_once.items():
        torch.testing.assert_close(in_runs[name], gradient, rtol=1e-4, atol=1e-5)


def test_scores_do_not_depend_on_batches(whole: tuple[Backbone, XLMRobertaForMaskedLM]) -> None:
    backbone, _ = whole
    of = rows("de", "validation", 20)
    features, model = encode(of, backbone, 24), language_model(backbone)
    assert len(features) > len(of)

    def scored(budget: int) -> dict[str, float]:
        predict = model_predictor(model, pad_token_id=PAD, token_budget=budget, device=torch.device("cpu"))
        return score_language(MLM, "de", of, features, predict(features)).values

    alone, together = scored(1), scored(4096)
    assert alone == pytest.approx(together, rel=1e-5)
    assert 1 < together["perplexity"] < 10**6
    assert 0 <= together["accuracy"] <= 100


def test_under_an_adapter_the_shared_embedding_stays_frozen(tiny_backbone: Path) -> None:
    backbone = Backbone(str(tiny_backbone))
    encoder = open_regime(AdapterSpec(reduction_factor=4)).attach(backbone, name="mlm")
    head = FORM.head(encoder.config.hidden_size, MLM, 0.0)
    assert isinstance(head, heads.MaskedLanguageHead)
    start_language_head(head, encoder, backbone.folder)
    model = TaskModel(encoder, head)
    batch = collate(encode(rows(), backbone), range(4), PAD)
    FORM.loss(model(**batch), batch["labels"]).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    assert all("adapters" in name or name.startswith("head.") for name in moved)
    assert {"head.bias", "head.dense.weight"} < moved


# from raw text to an artefact


def text_mirror(root: Path, **texts: str) -> Path:
    for lang, text in texts.items():
        folder = root / "mlm" / lang
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            (folder / f"{split}.txt").write_bytes(text.encode())
    return root


def test_text_is_read_line_by_line_and_blank_lines_are_counted(tmp_path: Path) -> None:
    source = open_source(str(text_mirror(tmp_path, sw="\ufeffMoja.\r\n\r\n  Mbili mbili.\r\n \r\nTatu.\r\n\r\n")))
    whole = source.load(MLM, "sw", "train")
    assert (list(whole.columns["text"]), whole.skipped) == (["Moja.", "Mbili mbili.", "Tatu."], 2)
    first = source.load(MLM, "sw", "train", limit=2)
    assert (list(first.columns["text"]), first.skipped) == (["Moja.", "Mbili mbili."], 1)


@pytest.mark.parametrize(("content", "named"), [(b"\n \n", "train.txt is empty"), (b"ja\n\xff\n", "line 2")])
def test_unusable_text_is_refused(content: bytes, named: str, tmp_path: Path) -> None:
    text_mirror(tmp_path, sw="x")
    (tmp_path / "mlm/sw/train.txt").write_bytes(content)
    with pytest.raises(UserError, match=named):
        open_source(str(tmp_path)).load(MLM, "sw", "train")


def test_a_mirror_without_text_says_where_it_would_lie(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mlm/yo.*train\.txt"):
        open_source(str(text_mirror(tmp_path, sw="x"))).identity(MLM, "yo", "train")


@pytest.mark.parametrize("regime", ["full", "adapter"])
def test_it_learns_and_a_target_takes_it_up(regime: str, tiny_backbone: Path, tmp_path: Path) -> None:
    recipe = make_recipe(
        {
            "backbone": str(tiny_backbone), "data": "embedded", "intermediate": ["mlm@sw+de"], "targets": ["tatoeba"],
            "languages": ["sw"], "regimes": {regime: {"compositions": ["none", "continue"]}},
            "training": {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "dtype": "float32"},
            "max_train_samples": 200, "max_eval_samples": 20, "max_predict_samples": 20,
        },
        place="the test",
    )  # fmt: skip
    store = Store(tmp_path)
    outcomes = run_plan(make_plan(recipe), store, Silent())
    assert [outcome.status for outcome in outcomes] == ["succeeded"] * 3
    (trained,) = (o.result for o in outcomes if o.stage.kind == "train")
    assert trained is not None
    assert trained.manifest["spec"]["train"]["lang"] == trained.manifest["spec"]["dev"]["lang"] == "de+sw"
    log = [json.loads(line) for line in (trained.folder / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert len(losses) == trained.record["steps"] >= 25
    assert sum(losses[-5:]) / 5 < math.log(500) - 0.2, "no better than any piece as likely as another"

"""Real rows through the mirror: every language of every task loads, and the embedded encoder makes sense of them."""

from pathlib import Path

import pytest
import torch

from xadapt.data import open_source
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.formats import FORMATS
from xadapt.models.backbone import Backbone
from xadapt.tasks import TASKS, get_task

HERE = ("mnli", "squad", "squad_v2", "hellaswag", "cosmos_qa", "commonsense_qa", "udpos", "panx", "tydiqa")


@pytest.mark.parametrize("name", HERE)
def test_english_training_and_dev_rows_load(realdata: Path, name: str) -> None:
    task, source = get_task(name), open_source(str(realdata))
    train, dev = (source.load(task, "en", split) for split in ("train", "validation"))  # type: ignore[arg-type]
    assert len(train) > len(dev) >= 200
    assert (len(train), len(dev)) == (source.count(task, "en", "train"), source.count(task, "en", "validation"))


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.role == "target"])
def test_every_language_loads(realdata: Path, name: str) -> None:
    task, source = get_task(name), open_source(str(realdata))
    assert source.languages(task) == (["zh"] if name == "bucc2018" else list(task.languages))
    for lang in source.languages(task):
        rows = source.load(task, lang, "test")
        assert len(rows) == source.count(task, lang, "test")
        assert {len(column) for column in rows.columns.values()} == {len(rows)}


def test_xnli_is_parallel(realdata: Path) -> None:
    task, source = get_task("xnli"), open_source(str(realdata))
    labels = {lang: list(source.load(task, lang, "test", limit=300).columns["label"]) for lang in task.languages}
    assert all(of_lang == labels["en"] for of_lang in labels.values())


def test_the_embedded_encoder_finds_translations(realdata: Path) -> None:
    task, backbone = get_task("tatoeba"), Backbone("embedded")
    form = FORMATS[task.format]
    encoder = backbone.encoder()
    for lang, at_least in (("de", 95), ("hi", 90), ("zh", 85)):
        rows = open_source(str(realdata)).load(task, lang, "test", limit=100)
        features = form.encode(rows, task, backbone.tokenizer, task.max_seq_length)
        vectors = sentence_vectors(
            encoder,
            features,
            layer=backbone.retrieval_layer,
            pad_token_id=backbone.tokenizer.pad_token_id,
            token_budget=1024,
            device=torch.device("cpu"),
        )
        found = form.decode(vectors, features, rows)
        assert sum(i == at for i, at in enumerate(found)) >= at_least, lang

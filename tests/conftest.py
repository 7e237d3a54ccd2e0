"""Fixtures that several test files share: a tiny XLM-R, a small mirror, the real one where it is at hand."""

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xadapt.languages import LANGUAGES
from xadapt.tasks import TASKS

LAYERS, HIDDEN, PIECES, CHARACTERS = 2, 32, 500, 300
READ = ("ar", "de", "en", "es", "fr", "hi", "ru", "sw", "tr", "zh")


@pytest.fixture(autouse=True)
def only_here() -> Iterator[None]:
    """What a test makes known is forgotten afterwards."""
    tasks, languages = dict(TASKS), dict(LANGUAGES)
    yield
    for known, before in ((TASKS, tasks), (LANGUAGES, languages)):
        known.clear()
        known.update(before)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained XLM-R: 2 layers, hidden 32, 500 pieces learnt from ten languages of the embedded suite."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    folder = tmp_path_factory.mktemp("tiny-xlm-r")
    pieces = _write_tokenizer(folder)
    config = XLMRobertaConfig(
        vocab_size=pieces,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.1,
    )
    torch.manual_seed(0)
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import XLMRobertaTokenizerFast

    from xadapt.data.suite import suite_rows

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    # BPE's trainer, unlike Unigram's or one with a limited alphabet, makes the same pieces in every process
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    # a full stop is a piece of its own, as it mostly is in XLM-R's vocabulary
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    trainer = trainers.BpeTrainer(vocab_size=PIECES, special_tokens=[*specials, "<mask>"], show_progress=False)
    texts = [row["premise"] for lang in READ for row in suite_rows("xnli", lang, "validation", limit=90)]
    counts = Counter(unicodedata.normalize("NFKC", "".join(texts)))
    kept = set(sorted(counts, key=lambda character: (-counts[character], character))[:CHARACTERS])
    tokenizer.train_from_iterator(["".join(c for c in text if c in kept) for text in texts], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = XLMRobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=512)
    fast.save_pretrained(folder)
    return len(fast)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror folder with the suite's first rows in the real layout: all four tasks, two or three languages."""
    from xadapt.data.suite import suite_rows

    root = tmp_path / "mirror"
    write_split(root / "mnli" / "train.parquet", suite_rows("mnli", "en", "train", limit=64))
    write_split(root / "mnli" / "validation.parquet", suite_rows("mnli", "en", "validation", limit=12))
    for lang in ("en", "de", "sw"):
        for split in ("validation", "test"):
            write_split(root / "xnli" / lang / f"{split}.parquet", suite_rows("xnli", lang, split, limit=12))
    for split in ("train", "validation", "test"):
        write_split(root / "udpos" / "udpos.English" / f"{split}.parquet", suite_rows("udpos", "en", split, limit=24))
    write_split(root / "udpos" / "udpos.German" / "test.parquet", suite_rows("udpos", "de", "test", limit=12))
    for lang, iso3 in (("de", "deu"), ("sw", "swh")):
        rows = suite_rows("tatoeba", lang, "validation", limit=12)
        write_split(root / "tatoeba" / f"tatoeba.{iso3}" / "validation.parquet", rows)
    return root


def write_split(path: Path, rows: list[dict[str, Any]], class_names: dict[str, list[str]] | None = None) -> None:
    """Write rows as Parquet; class_names stores a column's label names as `datasets` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if class_names:
        features = {
            name: {"names": class_names[name], "_type": "ClassLabel"}
            if name in class_names
            else {"dtype": "string", "_type": "Value"}
            for name in table.column_names
        }
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


@pytest.fixture
def realdata() -> Path:
    """The folder of real data that XADAPT_REALDATA names; tests that need it are left out without it."""
    folder = Path(os.environ.get("XADAPT_REALDATA", ""))
    if not os.environ.get("XADAPT_REALDATA") or not folder.is_dir():
        pytest.skip("XADAPT_REALDATA names no folder of real data")
    return folder

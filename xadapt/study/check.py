"""A dry run of a task: a few rows through everything that a study would do with them, on a small scale."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from xadapt.data import Rows, Source
from xadapt.data.rows import joined_splits
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.evaluation.zero_shot import Predictor, evaluate_languages, model_predictor
from xadapt.formats import FORMATS, Features
from xadapt.metrics import get_metric
from xadapt.models.backbone import Backbone, start_language_head
from xadapt.models.task_model import TaskModel, shares_embedding
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec
from xadapt.tasks import Task
from xadapt.tasks.catalogue import train_task_of
from xadapt.tasks.span_labels import with_labels
from xadapt.training.device import default_token_budget, make_accelerator
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.settings import TrainingSettings

ROWS, LANGUAGES = 8, 3


@dataclass(frozen=True)
class Finding:
    """One thing that was done, and what came out."""

    did: str
    found: str


def check_task(task: Task, source: Source, backbone: Backbone) -> Iterator[Finding]:
    """Load and encode ROWS rows of every split, take one training step with an adapter, score LANGUAGES languages.

    Raises UserError, with the row and column, for whatever a study would stop at.
    """
    yield from (Finding(f"metric {name}", get_metric(task.format, name).meaning) for name in task.metrics)
    train = None
    if task.trains:
        data = train_task_of(task)
        train = source.load(data, "en", "train", limit=ROWS)
        yield _rows(train)
        yield _rows(source.load(task if "validation" in task.splits else data, "en", "validation", limit=ROWS))
        task = with_labels(task, train.labels) if task.open_labels else task
    tests = [(lang, _test_rows(task, source, lang)) for lang in _some(task, source)]
    for _, rows in tests:
        yield _rows(rows)
    predict = None
    if train is not None:
        features = _encode(task, train, backbone)
        yield Finding(
            "encode", f"{len(train)} rows to {len(features)} features of up to {max(features.lengths)} tokens"
        )
        predict, loss = _step(task, features, backbone)
        yield Finding("one training step", f"loss {loss:.4f}")
    elif tests:
        predict = _vectors(backbone)
    languages = [(lang, [rows]) for lang, rows in tests]
    for result in evaluate_languages(
        task, languages, predict or _vectors(backbone), backbone.tokenizer, max_length=task.max_seq_length
    ):
        values = ", ".join(f"{name} {value:.1f}" for name, value in result.values.items())
        yield Finding(f"score {result.lang}", f"{values} (untrained, {result.n} rows)")


def _some(task: Task, source: Source) -> Sequence[str]:
    """The first languages a task has a test split for; an intermediate task has none."""
    if "test" not in task.splits:
        return []
    return source.languages(task)[:LANGUAGES]


def _test_rows(task: Task, source: Source, lang: str) -> Rows:
    if task.format == "mining":  # a few sentences would hold no pair
        return joined_splits(source.load(task, lang, "validation"), source.load(task, lang, "test"))
    return source.load(task, lang, "test", limit=ROWS)


def _rows(rows: Rows) -> Finding:
    first = "; ".join(f"{field}: {str(values[0])[:60]}" for field, values in rows.columns.items())
    return Finding(f"load {rows.split} {rows.lang}", f"{len(rows)} rows of {rows.place}, the first: {first}")


def _encode(task: Task, rows: Rows, backbone: Backbone) -> Features:
    return FORMATS[task.format].encode(rows, task, backbone.tokenizer, task.max_seq_length)


def _step(task: Task, features: Features, backbone: Backbone) -> tuple[Predictor, float]:
    form = FORMATS[task.format]
    encoder = open_regime(AdapterSpec()).attach(backbone, name=task.name)
    head = form.head(encoder.config.hidden_size, task, 0.1)
    assert head is not None
    if shares_embedding(head):
        start_language_head(head, encoder, backbone.folder)
    model, accelerator = TaskModel(encoder, head), make_accelerator("float32")
    pad = backbone.tokenizer.pad_token_id
    result = Training(
        model, [TrainingPart(form, features)], TrainingSettings(max_steps=1, per_device_train_batch_size=ROWS), seed=0,
        pad_token_id=pad, accelerator=accelerator, evaluate=lambda: {"none": 0.0}, metric="none", monitors=[],
    ).run()  # fmt: skip
    budget = default_token_budget(accelerator.device)
    return model_predictor(model, pad_token_id=pad, token_budget=budget, device=accelerator.device), result.losses[0]


def _vectors(backbone: Backbone) -> Predictor:
    encoder, pad = backbone.encoder(), backbone.tokenizer.pad_token_id

    def predict(features: Features) -> list[torch.Tensor]:
        return sentence_vectors(
            encoder, features, layer=backbone.retrieval_layer, pad_token_id=pad, token_budget=1024,
            device=torch.device("cpu"),
        )  # fmt: skip

    return predict

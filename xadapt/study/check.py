"""A dry run of a task: all its rows read, a few through everything else that a study would do with them."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from xadapt.data import Rows, Source
from xadapt.data.rows import joined_splits
from xadapt.data.survey import survey
from xadapt.errors import UserError
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
from xadapt.tasks.spec import Split
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
    """Read every row of every split and language, take one training step with an adapter, score LANGUAGES languages.

    Step and scores are of ROWS rows and of the same draws each time. Raises UserError, with the row and column, for
    whatever a study would stop at.
    """
    yield from (Finding(f"metric {name}", get_metric(task.format, name).meaning) for name in task.metrics)
    train = None
    if task.trains:
        data = train_task_of(task)
        train = yield from _read(data, source, "en", "train")
        yield from _read(task if "validation" in task.splits else data, source, "en", "validation")
    tests: list[tuple[str, list[Rows]]] = []
    for lang in source.languages(task) if "test" in task.splits else []:
        rows = yield from _read(task, source, lang, "test")
        tests += [(lang, [_test_rows(task, source, lang, rows)])] if len(tests) < LANGUAGES else []
    for lang, split in _others(task, source):
        yield from _read(task, source, lang, split)
    predict = None
    if train is not None:
        task = with_labels(task, train.labels) if task.open_labels else task
        features = _encode(task, train, backbone)
        yield Finding(
            "encode", f"{len(train)} rows to {len(features)} features of up to {max(features.lengths)} tokens"
        )
        predict, loss = _step(task, features, backbone)
        yield Finding("one training step", f"loss {loss:.4f}")
    yield from _scores(task, tests, predict, backbone)


def _read(task: Task, source: Source, lang: str, split: Split) -> Generator[Finding, None, Rows]:
    """Tell of a split, and give its first rows."""
    found = survey(task, source, lang, split, keep=ROWS)
    first = "; ".join(f"{field}: {str(values[0])[:60]}" for field, values in found.first.columns.items())
    yield Finding(f"load {split} {lang}", f"{found}; the first: {first}")
    return found.first


def _others(task: Task, source: Source) -> Iterator[tuple[str, Split]]:
    """What no study reads unless it is asked to, where the data has it: other languages to train and to select on."""
    rest: tuple[Split, ...] = ("train", "validation")
    for lang in source.languages(task):
        for split in rest:
            if split in task.splits and (lang, task.trains) != ("en", True):
                with suppress(UserError):  # a split that is not there
                    source.identity(task, lang, split)
                    yield lang, split


def _test_rows(task: Task, source: Source, lang: str, first: Rows) -> Rows:
    if task.format == "mining":  # a few sentences would hold no pair
        return joined_splits(source.load(task, lang, "validation"), source.load(task, lang, "test"))
    return first


def _scores(
    task: Task, tests: Sequence[tuple[str, Sequence[Rows]]], predict: Predictor | None, backbone: Backbone
) -> Iterator[Finding]:
    if not tests:
        return
    predict = predict or _vectors(backbone)
    for result in evaluate_languages(task, tests, predict, backbone.tokenizer, max_length=task.max_seq_length):
        values = ", ".join(f"{name} {value:.1f}" for name, value in result.values.items())
        yield Finding(f"score {result.lang}", f"{values} (untrained, {result.n} rows)")


def _encode(task: Task, rows: Rows, backbone: Backbone) -> Features:
    return FORMATS[task.format].encode(rows, task, backbone.tokenizer, task.max_seq_length)


def _step(task: Task, features: Features, backbone: Backbone) -> tuple[Predictor, float]:
    torch.manual_seed(0)  # of the module and the head: two checks print the same numbers
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

"""`xadapt predict`: the evaluation's own predictions for the same rows, in every format, and bad input located."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_split
from safetensors.torch import load_file, save_file
from silent_reporter import Silent
from typer.testing import CliRunner
from typer.testing import Result as Invoked

from xadapt.analysis.own_predictions import OwnPrediction, prediction_sink
from xadapt.data.sources import EmbeddedSource
from xadapt.data.suite import suite_rows
from xadapt.errors import UserError
from xadapt.evaluation.own_records import Kind
from xadapt.evaluation.own_rows import read_own_rows
from xadapt.formats import FORMATS
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import TaskModel
from xadapt.study.executors import run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.self_check import regime_of
from xadapt.study.store import Result, Store
from xadapt.tasks import get_task
from xadapt.training.prediction import predict_logits
from xadapt_cli.app import app

ROWS, LENGTH = 20, 64
TARGETS = {"udpos": "de", "xnli": "sw", "tydiqa": "ru"}
CHOICES = ("hellaswag", "cosmos_qa", "commonsense_qa")
SMALL: dict[str, Any] = {
    "data": "embedded", "max_train_samples": 24, "max_eval_samples": 8, "max_predict_samples": ROWS,
    "training": {
        "max_steps": 6, "per_device_train_batch_size": 4, "dtype": "float32", "learning_rate": 3e-3,
        "max_seq_length": LENGTH,
    },
}  # fmt: skip


@dataclass
class Models:
    """Targets by name, each with its `evaluate <name>`; choice tasks; and `several`, a model of three heads."""

    backbone: Path
    store: Store
    found: dict[str, Result] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Result:
        """Trained when it is first asked for."""
        task = name.removeprefix("evaluate ")
        if name not in self.found:
            recipe: dict[str, Any] = {"intermediate": [task], "regimes": {"lora": {"compositions": ["none"]}}}
            if task in CHOICES:  # far enough for choices to differ
                recipe["training"] = SMALL["training"] | {"learning_rate": 3e-2, "max_steps": 40}
            if task in TARGETS:
                full = {"full": {"compositions": ["none"]}}
                recipe = {"targets": [task], "languages": [TARGETS[task]], "regimes": full}
            if task == "several":
                joint = {"adapter": {"compositions": ["multitask"]}}
                recipe = {"intermediate": ["mnli", "ccg"], "regimes": joint, "mixture": {"mlm_ratio": 0.2}}
            made = make_recipe(SMALL | recipe | {"backbone": str(self.backbone)}, place="the test")
            for outcome in run_plan(make_plan(made), self.store, Silent()):
                assert outcome.result, outcome.error
                self.found[task if outcome.stage.kind == "train" else f"evaluate {task}"] = outcome.result
        return self.found[name]


@pytest.fixture(scope="module")
def models(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tiny_backbone, Store(tmp_path_factory.mktemp("runs")))


def predict(artefact: Result | Path, *options: str, rows: str | bytes | None = None) -> Invoked:
    folder = artefact.folder if isinstance(artefact, Result) else artefact
    return CliRunner().invoke(app, ["predict", str(folder), *options], input=rows)


def predicted(artefact: Result | Path, *options: str, rows: str | bytes | None = None) -> list[dict[str, Any]]:
    result = predict(artefact, *options, rows=rows)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def refusal(artefact: Result | Path, *options: str, rows: str | bytes | None = None) -> str:
    result = predict(artefact, *options, rows=rows)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def own(task: str, lang: str) -> list[dict[str, Any]]:
    """The suite's test rows, or dev rows where there is no test, without their gold."""
    split = "validation" if task in (*CHOICES, "tydiqa") else "test"
    gold = {"label", "pos_tags", "tags", "answers", "answerKey"}
    return [{k: v for k, v in row.items() if k not in gold} for row in suite_rows(task, lang, split, limit=ROWS)]


def as_text(prediction: str | list[str]) -> str:
    return " ".join(prediction) if isinstance(prediction, list) else prediction


@pytest.mark.parametrize("task", TARGETS)
def test_predictions_are_the_evaluations(models: Models, task: str, tmp_path: Path) -> None:
    lang = TARGETS[task]
    path = tmp_path / "rows.jsonl"
    path.write_text(json_lines(own(task, lang)), encoding="utf-8")
    table = pq.read_table(models[f"evaluate {task}"].folder / "predictions.parquet").to_pylist()
    expected = [row for row in table if row["language"] == lang]
    found = predicted(models[task], "--input", str(path), "--lang", lang)
    assert [as_text(row["prediction"]) for row in found] == [row["prediction"] for row in expected]
    assert [row["confidence"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-4)
    assert [row["id"] for row in found] == [row["id"] for row in own(task, lang)]
    assert {row["language"] for row in found} == {lang}
    assert task == "xnli" or len({as_text(row["prediction"]) for row in found}) > 1, "the model tells rows apart"
    assert len({row["confidence"] for row in found}) > 1
    assert predicted(models[task], "--input", "-", "--lang", lang, rows=path.read_bytes()) == found
    for row in found:
        certain = row.get("probabilities")
        if task == "xnli":
            assert list(certain) == list(get_task("xnli").labels)
            assert sum(certain.values()) == pytest.approx(1, abs=1e-12)
            assert certain[row["prediction"]] == max(certain.values()) == pytest.approx(row["confidence"], abs=1e-5)
        elif task == "udpos":
            assert len(certain) == len(row["prediction"])
            assert sum(certain) / len(certain) == pytest.approx(row["confidence"], abs=1e-5)
        else:
            assert certain is None


@pytest.mark.parametrize("task", CHOICES)
def test_choices_are_predicted_as_in_training(models: Models, task: str, tiny_backbone: Path) -> None:
    spec, form, backbone = get_task(task), FORMATS["choice"], Backbone(str(tiny_backbone))
    rows = EmbeddedSource().load(spec, "en", "validation", limit=ROWS)
    features = form.encode(rows, spec, backbone.tokenizer, LENGTH)
    encoder = regime_of(models[task]).load(backbone, models[task].folder)
    head = form.head(encoder.config.hidden_size, spec, 0.0)
    assert head is not None
    head.load_state_dict(load_file(models[task].folder / "head.safetensors"))
    logits = predict_logits(
        TaskModel(encoder, head), features, pad_token_id=1, token_budget=1, device=torch.device("cpu")
    )
    found = predicted(models[task], "--input", "-", rows=json_lines(own(task, "en")))
    chosen = [spec.labels.index(row["prediction"]) for row in found]
    # as good as the best one, for batches of another shape decide otherwise between equals
    for of, at in zip(logits, chosen, strict=True):
        assert of[at] >= of.max() - 1e-5
    assert len(set(chosen)) > 1
    assert [row["confidence"] for row in found] == pytest.approx(form.confidence(logits, features, rows), abs=1e-5)


def test_fields_go_by_the_formats_names_too(models: Models) -> None:
    rows = own("xnli", "en")
    named = [{"text_a": row["premise"], "text_b": row["hypothesis"], "other": 1} for row in rows]
    found = predicted(models["xnli"], "--input", "-", rows=json_lines(rows))
    again = predicted(models["xnli"], "--input", "-", rows="\ufeff" + json_lines(named).replace("\n", "\r\n\n"))
    for key in ("prediction", "confidence"):
        assert [row[key] for row in again] == [row[key] for row in found]
    assert [row["id"] for row in again] == list(range(1, ROWS + 1))
    assert all("language" not in row for row in again)


def test_words_may_be_given_as_a_text(models: Models) -> None:
    rows = own("udpos", "en")
    texts = [{"id": i, "tokens": " ".join(row["tokens"])} for i, row in enumerate(rows)]
    found = predicted(models["udpos"], "--input", "-", rows=json_lines(rows))
    again = predicted(models["udpos"], "--input", "-", rows=json_lines(texts))
    assert [row["prediction"] for row in again] == [row["prediction"] for row in found]
    assert [len(row["prediction"]) for row in found] == [len(row["tokens"]) for row in rows]
    assert [row["id"] for row in again] == list(range(ROWS))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        cells = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        writer.writerows(cells)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("task", ["xnli", "udpos", "tydiqa", "hellaswag", "cosmos_qa"])
def test_csv_in_and_out_says_the_same(models: Models, task: str, tmp_path: Path) -> None:
    rows = own(task, "en")
    found = predicted(models[task], "--input", "-", rows=json_lines(rows))
    if task == "udpos":
        rows = [{"id": row["id"], "tokens": " ".join(row["tokens"])} for row in rows]
    write_csv(tmp_path / "rows.csv", rows)
    out = tmp_path / "new" / "out.csv"
    assert predicted(models[task], "--input", str(tmp_path / "rows.csv"), "--output", str(out)) == []
    assert [path.name for path in out.parent.iterdir()] == ["out.csv"]
    table = read_csv(out)
    assert [row["id"] for row in table] == [row["id"] for row in found]
    assert [row["prediction"] for row in table] == [as_text(row["prediction"]) for row in found]
    assert [float(row["confidence"]) for row in table] == pytest.approx([row["confidence"] for row in found], abs=1e-5)
    for label, of in (found[3].get("probabilities", {}) if task not in ("udpos", "tydiqa") else {}).items():
        assert float(table[3][f"probability_{label}"]) == pytest.approx(of)
    assert predicted(models[task], "--input", str(tmp_path / "rows.csv")) == found
    content = (tmp_path / "rows.csv").read_bytes()
    assert predicted(models[task], "--input", "-", "--format", "csv", rows=content) == found


NASTY = [
    "-273.15 °C", "=1+1", "+1", "@x", "'quoted'", "\ttab", "\rreturn", "line\nend", "both\r\nends", " spaces ", 'a "quoted", one',
    "", ",", "'", '"', "\0", "\u2028\u202e", "NULL", "nan", "0", "1e5", "中文", "a;b|c",
]  # fmt: skip


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        return list(read_csv(path))
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "CSV"])
def test_every_text_comes_back_as_it_was(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    with prediction_sink(str(out)) as write:
        for at in (0, 9):
            write([OwnPrediction(text, text, float("-inf"), "de") for text in NASTY[at : at + 9 if at == 0 else None]])
    rows = read_back(out.rename(tmp_path / f"out.{ending.lower()}"))
    assert [row["prediction"] for row in rows] == NASTY
    assert [row["id"] for row in rows] == NASTY
    assert {row["language"] for row in rows} == {"de"}
    assert {row["confidence"] for row in rows} <= {None, ""}


@pytest.mark.parametrize("task", ["xnli", "udpos", "tydiqa"])
def test_parquet_in_and_out_says_the_same(models: Models, task: str, tmp_path: Path) -> None:
    rows = own(task, "en")
    write_split(tmp_path / "rows.parquet", rows)
    found = predicted(models[task], "--input", "-", rows=json_lines(rows))
    assert predicted(models[task], "--input", str(tmp_path / "rows.parquet")) == found
    assert (
        predicted(models[task], "--input", "-", "--format", "parquet", rows=(tmp_path / "rows.parquet").read_bytes())
        == found
    )
    out = tmp_path / "out.parquet"
    predicted(models[task], "--input", str(tmp_path / "rows.parquet"), "--output", str(out))
    table = pq.read_table(out).to_pylist()
    for key in ("id", "prediction", "confidence"):
        assert [row[key] for row in table] == [row[key] for row in found]
    if task == "xnli":
        assert [row["probability_neutral"] for row in table] == [row["probabilities"]["neutral"] for row in found]
    if task == "udpos":
        assert [row["probabilities"] for row in table] == [row["probabilities"] for row in found]
    column = {"xnli": "premise", "udpos": "tokens", "tydiqa": "question"}[task]
    write_split(tmp_path / "bad.parquet", [*rows[:3], rows[3] | {column: None}])
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:-9])
    first = pa.Table.from_pylist(rows[:1])
    far = pa.array([2**62], pa.timestamp("us"))  # a year that Python does not have
    pq.write_table(first.append_column("when", far), tmp_path / "far.parquet")
    pq.write_table(first.append_column(column, first[column]), tmp_path / "twice.parquet")
    for name, named in (
        ("bad.parquet", "row 3"),
        ("cut.parquet", "Parquet"),
        ("far.parquet", "row 0"),
        ("twice.parquet", column),
    ):
        message = refusal(models[task], "--input", str(tmp_path / name), "--output", str(tmp_path / "no.csv"))
        assert str(tmp_path / name) in message
        assert named in message
    assert not (tmp_path / "no.csv").exists()


def test_a_row_says_its_own_language_and_id(models: Models, tmp_path: Path) -> None:
    pair = {"premise": "a b", "hypothesis": "c"}
    given = [
        {"id": 7, "lang": "sw"},
        {"id": "x", "language": "zh-Hant"},
        {"id": None, "lang": None},
        {"id": "", "lang": ""},
        {},
    ]
    rows = json_lines([pair | more for more in given])
    found = predicted(models["xnli"], "--input", "-", "--lang", "de", rows=rows)
    assert [row["id"] for row in found] == [7, "x", 3, 4, 5]
    assert [row["language"] for row in found] == ["sw", "zh-Hant", "de", "de", "de"]
    assert ["language" in row for row in predicted(models["xnli"], "--input", "-", rows=rows)] == [True] * 2 + [
        False
    ] * 3
    out = tmp_path / "out.csv"
    predicted(models["xnli"], "--input", "-", "--output", str(out), rows=rows)
    assert [row["language"] for row in read_csv(out)] == ["sw", "zh-Hant", "", "", ""]
    message = refusal(models["xnli"], "--input", "-", rows=GOOD + json_lines([pair | {"lang": "english!"}]))
    assert all(part in message for part in ("line 2", "'lang'", "english!"))


def test_one_of_several_heads_is_chosen(models: Models) -> None:
    several = models["several"]
    found = predicted(several, "--input", "-", "--task", "mnli", rows=json_lines(own("xnli", "de")))
    assert {row["prediction"] for row in found} <= {"entailment", "neutral", "contradiction"}
    tags = predicted(several, "--input", "-", "--task", "ccg", rows='{"tokens": "The ferry leaves ."}\n')
    categories = {tag for row in suite_rows("ccg", "en", "train", limit=24) for tag in row["tags"]}
    assert len(tags[0]["prediction"]) == 4
    assert set(tags[0]["prediction"]) <= categories
    row = '{"tokens": "a b"}\n'
    assert "--task" in refusal(several, "--input", "-", rows=row)
    assert "mlm" in refusal(several, "--input", "-", "--task", "mlm", rows=row)
    assert "mnli" in refusal(several, "--input", "-", "--task", "mnly", rows=row)
    assert "tatoeba" in refusal(several, "--input", "-", "--task", "tatoeba", rows=row)
    assert "ccg" not in refusal(models["udpos"], "--input", "-", "--task", "xnli", rows=row)


GOOD = '{"premise": "a b", "hypothesis": "c"}\n'


@pytest.mark.parametrize(
    ("task", "rows", "named"),
    [
        ("xnli", GOOD + '{"premise": "a"}\n', ["line 2", "hypothesis"]),
        ("xnli", '{"premise": "a", "hypotesis": "b"}\n', ["line 1", "hypotesis"]),
        ("xnli", GOOD * 300 + '{"premise": "a", "hypothesis": ""}\n', ["line 301", "hypothesis"]),
        ("xnli", GOOD + "\n" + '{"premise": "a", "hypothesis": 3}\n', ["line 3", "hypothesis"]),
        ("xnli", GOOD + '{"premise": "a", "hypothesis": "\\ud800"}\n', ["line 2", "hypothesis"]),
        ("xnli", GOOD + '{"premise": "a", \n', ["line 2", "JSON"]),
        ("xnli", GOOD + "[1]\n", ["line 2"]),
        ("xnli", GOOD + "[" * 100000 + "\n", ["line 2"]),
        ("xnli", GOOD.encode() + b'{"premise": "\xff"}\n', ["line 2", "UTF-8"]),
        ("xnli", GOOD + '{"id": [1], "premise": "a", "hypothesis": "b"}\n', ["line 2", "'id'"]),
        ("xnli", GOOD + '{"id": "\\ud800", "premise": "a", "hypothesis": "b"}\n', ["line 2", "'id'"]),
        ("xnli", "", ["no rows"]),
        ("xnli", "\n \n", ["no rows"]),
        ("udpos", '{"tokens": "a"}\n{"tokens": []}\n', ["line 2", "tokens"]),
        ("udpos", '{"tokens": "a"}\n{"tokens": " "}\n', ["line 2", "tokens"]),
        ("udpos", '{"tokens": ["a", 3]}\n', ["line 1", "tokens"]),
        ("tydiqa", '{"context": "a"}\n', ["line 1", "question"]),
        ("tydiqa", '{"context": " ", "question": "b"}\n', ["line 1", "context"]),
        ("hellaswag", '{"prompt": "a", "stem": "", "choices": ["b", "c"]}\n', ["line 1", "choices"]),
        ("cosmos_qa", '{"context": "a", "question": "", "answer0": "b", "answer1": "c"}\n', ["line 1", "answer2"]),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(
    models: Models, task: str, rows: str | bytes, named: list[str], tmp_path: Path
) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out" / "found.jsonl"
    path.write_bytes(rows.encode() if isinstance(rows, str) else rows)
    message = refusal(models[task], "--input", str(path), "--output", str(out))
    assert all(word in message for word in [*named, str(path)]), message
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('premise,hypothesis\na,"b\nc"\n"d\ne",\n', ["line 4", "hypothesis"]),
        ("premise,hypothesis\na,b\na,b,c\n", ["line 3", "3 cells"]),
        ("premise,hypothesis\na\n", ["line 2", "1 cell"]),
        ("premise,premise\na,b\n", ["line 1", "premise"]),
        ('premise,hypothesis\na,"b\n', ["line 2", "CSV"]),
        ("premise,hypothesis\n", ["no rows"]),
        ("a,b\n1,2\n", ["premise"]),
    ],
)
def test_a_bad_line_of_a_table_is_named(text: str, named: list[str]) -> None:
    lines = text.encode().splitlines(keepends=True)
    with pytest.raises(UserError) as refused:
        list(read_own_rows(lines, get_task("xnli"), name="rows.csv", kind="csv"))
    assert all(word in str(refused.value) for word in [*named, "rows.csv"]), str(refused.value)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_no_more_than_a_block_is_read_ahead(kind: Kind) -> None:
    taken = 0

    def lines() -> Iterator[bytes]:
        nonlocal taken
        yield b"premise,hypothesis\n" if kind == "csv" else b"\n"
        while True:
            taken += 1
            yield b"a,b\n" if kind == "csv" else GOOD.encode()

    blocks = read_own_rows(lines(), get_task("xnli"), name="endless", kind=kind, block=16)
    for number in range(1, 6):
        assert len(next(blocks)) == 16
        assert taken == 16 * number


def test_predictions_come_before_the_input_ends(models: Models) -> None:
    command = [sys.executable, "-m", "xadapt_cli", "predict", str(models["xnli"].folder), "--input", "-"]
    if not (Path(__file__).parents[1] / "cli" / "__main__.py").is_file():
        command[1:3] = ["-c", "from xadapt_cli.app import main; main()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(GOOD * 256)
        process.stdin.flush()
        first = [json.loads(process.stdout.readline()) for _ in range(256)]
        process.stdin.write(GOOD)
        process.stdin.close()
        rest = process.stdout.read().splitlines()
    assert [row["id"] for row in first] == list(range(1, 257))
    assert len(rest) == 1
    assert process.returncode == 0


def test_a_copy_works_elsewhere_and_another_backbone_is_refused(
    models: Models, tiny_backbone: Path, tmp_path: Path
) -> None:
    copy, moved, other = tmp_path / "model", tmp_path / "encoder", tmp_path / "other"
    shutil.copytree(models["udpos"].folder, copy)
    shutil.copytree(tiny_backbone, moved)
    shutil.copytree(tiny_backbone, other)
    row = '{"tokens": "a b"}\n'
    found = predicted(models["udpos"], "--input", "-", rows=row)
    assert predicted(copy, "--input", "-", "--backbone", str(moved), rows=row) == found
    tensors = load_file(other / "model.safetensors")
    tensors[next(iter(tensors))] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert "--backbone" in refusal(copy, "--input", "-", "--backbone", str(other), rows=row)
    weights = copy / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert str(weights) in refusal(copy, "--input", "-", rows=row)
    (copy / "manifest.json").unlink()
    assert "manifest.json" in refusal(copy, "--input", "-", rows=row)
    evaluation = models["evaluate udpos"].folder
    assert str(models["udpos"].folder) in refusal(evaluation, "--input", "-", rows=row)


def test_options_that_make_no_sense_are_refused(models: Models, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    wrong = [
        (str(tmp_path / "rows.tsv"), []), (str(tmp_path / "none.jsonl"), []), (str(path), ["--output", str(path)]),
        (str(path), ["--output", str(tmp_path)]), (str(path), ["--lang", "english!"]), (str(path), ["--dtype", "float8"]),
        (str(path), ["--format", "json"]), (str(path), ["--output", str(tmp_path / "out.json")]),
        (str(path), ["--output", str(tmp_path / "out.csv.gz")]), (str(path), ["--output", str(tmp_path / "out")]),
    ]  # fmt: skip
    for rows, options in wrong:
        refusal(models["xnli"], "--input", rows, *options)
    assert path.read_text() == GOOD
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]

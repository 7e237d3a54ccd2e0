"""Predictions written as a submission are read back and scored to the same numbers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from xadapt.data.suite import suite_rows
from xadapt.evaluation.predictions import SCHEMA
from xadapt.evaluation.submission_export import export_predictions
from xadapt.tasks import get_task
from xadapt_cli.app import app


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def written(tmp_path: Path, task: str, lines: list[dict[str, Any]]) -> dict[str, str]:
    table = pa.Table.from_pylist([{"score": 1.0, "gold": "", **line} for line in lines], schema=SCHEMA)
    pq.write_table(table, tmp_path / "p.parquet")
    files = export_predictions(get_task(task), tmp_path / "p.parquet", tmp_path / "out")
    return {str(file.relative_to(tmp_path / "out")): file.read_text("utf-8") for file in files}


@pytest.mark.parametrize(
    ("task", "lines", "expected"),
    [
        ("pawsx", [("de", "0", "paraphrase"), ("de", "1", "different")], {"pawsx/test-de.tsv": "1\n0\n"}),
        ("xnli", [("de", "0", "neutral"), ("sw", "0", "entailment")], {"xnli/test-de.tsv": "neutral\n", "xnli/test-sw.tsv": "entailment\n"}),
        ("panx", [("de", "0", "O B-PER"), ("de", "1", "O")], {"panx/test-de.tsv": "O\nB-PER\n\nO\n\n"}),
        ("tatoeba", [("de", "0", "3"), ("de", "1", "0")], {"tatoeba/test-de.tsv": "3\n0\n"}),
        ("bucc2018", [("de", "de-1", "en-7"), ("de", "de-2", "")], {"bucc2018/test-de.tsv": "de-1\ten-7\n"}),
        ("xquad", [("de", "q1", "im Jahr 1900"), ("de", "q2", "")], {"xquad/test-de.json": {"q1": "im Jahr 1900", "q2": ""}}),
    ],
)  # fmt: skip
def test_every_kind_of_file(task: str, lines: list[tuple[str, str, str]], expected: dict[str, Any], tmp_path: Path) -> None:  # fmt: skip
    found = written(tmp_path, task, [{"language": a, "id": b, "prediction": c} for a, b, c in lines])
    assert {name: json.loads(text) if name.endswith("json") else text for name, text in found.items()} == expected


def test_the_score_of_an_exported_study_is_the_studys(tmp_path: Path, tiny_backbone: Path) -> None:
    store, labels = tmp_path / "store", tmp_path / "labels"
    recipe = {
        "name": "small", "backbone": str(tiny_backbone), "data": "embedded", "targets": ["xnli"],
        "training": {"max_steps": 2}, "max_train_samples": 16, "max_eval_samples": 8, "max_predict_samples": 10,
    }  # fmt: skip
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe))
    run("run", tmp_path / "small.yaml", "--store", store)
    assert "15 files" in run("export", "small", "--xtreme", tmp_path / "predictions", "--store", store)
    (labels / "xnli").mkdir(parents=True)
    for lang in get_task("xnli").languages:
        gold = [row["label"] for row in suite_rows("xnli", lang, "test", limit=10)]
        (labels / "xnli" / f"test-{lang}.tsv").write_text("".join(f"{label}\n" for label in gold))
    scored = json.loads(
        run("score", "--predictions", tmp_path / "predictions", "--labels", labels, "--languages", "--json")
    )
    compared = json.loads(run("compare", "--store", store, "--json"))
    ours = {r["language"]: r["value"] for r in compared}
    languages = scored["tasks"]["xnli"]["languages"]
    assert {lang: values["accuracy"] for lang, values in languages.items()} == pytest.approx(ours)


def test_several_rows_are_told_apart(tmp_path: Path) -> None:
    from xadapt.study.store import Store

    cell = {"regime": "adapter", "target": "xnli", "seed": 0, "repeats": False, "evaluation": "0" * 64}
    cells = [
        cell | {"composition": "none", "intermediate": ""},
        cell | {"composition": "stack", "intermediate": "mnli"},
    ]
    Store(tmp_path).write_study("two", {"recipe": {}, "setting": "", "cells": cells})
    output = run("export", "two", "--xtreme", tmp_path / "x", "--store", tmp_path, code=1)
    assert isinstance(output, str)
    from xadapt_cli import export

    with pytest.raises(
        ValueError, match=r"several rows.*--composition none; .*--composition stack --intermediate mnli"
    ):
        export._one_row("two", cells, {"regime": "adapter", "composition": None, "intermediate": None})
    with pytest.raises(ValueError, match="no such row"):
        export._one_row("two", cells, {"regime": "full", "composition": None, "intermediate": None})
    assert export._one_row("two", cells, {"regime": None, "composition": "stack", "intermediate": None}) == cells[1:]

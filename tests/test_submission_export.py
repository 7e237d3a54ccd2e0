"""Predictions written as a submission are scored to the same numbers; what is no whole submission is not written."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import write_split
from typer.testing import CliRunner

from xadapt.errors import UserError
from xadapt.evaluation.predictions import SCHEMA
from xadapt.evaluation.submission_export import Evaluated, check_whole, submitted_targets, write_submission
from xadapt.evaluation.submission_files import SUBMISSION_TASKS
from xadapt.regimes.specs import COMPOSITIONS
from xadapt.study.store import Store
from xadapt.tasks import get_task
from xadapt.tasks.user import stored_spec
from xadapt_cli.app import app

NINE = list(SUBMISSION_TASKS)


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(result.exception, UserError), (result.output, result.exception)
    return str(result.exception)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written(tmp_path: Path, task: str, lines: list[dict[str, Any]]) -> dict[str, str]:
    table = pa.Table.from_pylist([{"score": 1.0, "gold": "", **line} for line in lines], schema=SCHEMA)
    pq.write_table(table, tmp_path / "p.parquet")
    evaluated = Evaluated(stored_spec(get_task(task)), {}, tmp_path / "p.parquet")
    files = write_submission([evaluated], tmp_path / "out")
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
    whole = {name: json.loads(text) if name.endswith("json") else text for name, text in found.items()}
    assert {name: content for name, content in whole.items() if content} == expected
    assert len(whole) == len(get_task(task).languages), "an empty file where nothing is predicted"


# ---- what is whole


def evaluated(name: str, *, cap: int | None = None, **changes: dict[str, Any]) -> Evaluated:
    """As recorded of every language's rows, XTREME's number where it is known, else 300; but for some languages."""
    layout = SUBMISSION_TASKS[name]
    scores = [
        {"language": lang, "n": layout.rows.get(lang, 300), "skipped": 0, "stand_in": ""} | changes.get(lang, {})
        for lang in layout.languages
        if changes.get(lang) != {}
    ]
    return Evaluated({"task": name, "max_samples": cap}, {"scores": scores}, Path("predictions.parquet"))


CUT: dict[str, dict[str, Any]] = {lang: {"n": 50} for lang in ("de", "sw")}


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (evaluated("xnli", cap=50, **CUT), ["xnli: 50 of 5,010 rows in de sw"]),
        (evaluated("tatoeba", te={"n": 200}, ta={"n": 1000}), ["200 of 234 rows in te", "1,000 of 307 rows in ta"]),
        (evaluated("pawsx", ko={"n": 1998, "skipped": 2}), ["pawsx: 2 rows left out", "in ko"]),
        (evaluated("mlqa", vi={}, zh={}), ["mlqa: 2 of its 7 languages missing (vi zh)"]),
        (evaluated("panx", en={"stand_in": "validation"}), ["panx: rows of the validation split", "in en"]),
        (evaluated("udpos", cap=300, th={"n": 200}), ["udpos: the first 300 rows alone in af ar"]),
    ],
    ids=lambda value: value.layout.name if isinstance(value, Evaluated) else "",
)
def test_what_is_not_whole_is_named(found: Evaluated, named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_whole([evaluated("xquad"), found], place="study 's'")
    assert [part for part in ["study 's'", *named] if part not in str(caught.value)] == []
    assert "xquad" not in str(caught.value)


@pytest.mark.parametrize(("name", "cap"), [("xquad", 1190), ("tydiqa", 921), ("udpos", 301), ("bucc2018", None)])
def test_a_cap_that_cut_nothing_is_no_reason(name: str, cap: int | None) -> None:
    check_whole([evaluated(name, cap=cap)], place="study 's'")


def test_the_known_rows_are_of_the_tasks_languages() -> None:
    for task in SUBMISSION_TASKS.values():
        assert set(task.rows) in (set(), set(task.languages)), task.name
    totals = {name: sum(task.rows.values()) for name, task in SUBMISSION_TASKS.items()}
    assert totals["tydiqa"] == 5077
    assert (min(SUBMISSION_TASKS["mlqa"].rows.values()), max(SUBMISSION_TASKS["mlqa"].rows.values())) == (4517, 11590)


def test_tatoebas_rows_are_lasers(realdata: Path) -> None:
    from xadapt.languages import get_language

    for lang, rows in SUBMISSION_TASKS["tatoeba"].rows.items():
        file = realdata / "tatoeba" / f"tatoeba.{get_language(lang).iso3}" / "validation.parquet"
        assert pq.read_metadata(file).num_rows == rows, lang


# ---- which targets


def test_all_nine_or_those_that_are_asked_for() -> None:
    assert submitted_targets(NINE, [], place="s") == NINE
    assert submitted_targets(["xnli", "pawsx", "topics"], ["pawsx", "xnli"], place="s") == ["xnli", "pawsx"]
    assert submitted_targets(["xnli", "xnli@de"], ["xnli@de"], place="s") == ["xnli@de"]


@pytest.mark.parametrize(
    ("targets", "wanted", "named"),
    [
        (["xnli", "pawsx"], [], ["udpos, panx", "--task xnli,pawsx"]),
        ([*NINE, "topics"], [], ["'topics'", f"--task {','.join(NINE)}"]),
        (["xnli", "topics"], ["topics"], ["'topics'", "--task xnli"]),
        (["topics"], [], ["'topics'"]),
        (["xnli", "pawsx"], ["xnly"], ["'xnly'", "Did you mean 'xnli'"]),
        ([*NINE, "xnli@de"], [], ["xnli and xnli@de", "--task"]),
    ],
)
def test_other_targets_are_refused(targets: list[str], wanted: list[str], named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        submitted_targets(targets, wanted, place="study 's'")
    assert [part for part in ["study 's'", *named] if part not in str(caught.value)] == []


# ---- the command


@pytest.fixture
def paws(tmp_path: Path) -> Path:
    """A mirror with as many short pairs as PAWS-X has, to be told apart by their words."""
    words = ("a", "of", "the", "in", "to")
    for lang in get_task("pawsx").languages:
        for split, n in (("train", 16), ("validation", 8), ("test", 2000)):
            rows = [
                {"sentence1": words[i % 5], "sentence2": words[i * i % 7 % 5], "label": str(i * i % 7 % 2)}
                for i in range(n)
            ]
            write_split(tmp_path / "mirror" / "pawsx" / lang / f"{split}.parquet", rows)
    return tmp_path / "mirror"


def test_a_whole_study_is_exported_and_scored_as_itself(tmp_path: Path, paws: Path, tiny_backbone: Path) -> None:
    store, labels, out = tmp_path / "store", tmp_path / "labels", tmp_path / "predictions"
    recipe = {
        "name": "whole", "backbone": str(tiny_backbone), "data": str(paws), "targets": ["pawsx"],
        "regimes": {"full": {"compositions": ["none"]}}, "training": {"max_steps": 20, "learning_rate": 1e-2},
    }  # fmt: skip
    for name, more in (("whole", {}), ("capped", {"max_predict_samples": 50}), ("other", {"seed": 1})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe | {"name": name, **more}))
        run("run", tmp_path / f"{name}.yaml", "--store", store)

    assert "--task pawsx" in refused("export", "whole", "--xtreme", out, "--store", store)
    for study, where, named in (
        ("capped", out, "50 of 2,000 rows in de en"),
        ("whole", tmp_path / "whole.yaml", "a file"),
    ):
        assert named in refused("export", study, "--task", "pawsx", "--xtreme", where, "--store", store)
    assert not out.exists()
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"

    exported = ["export", "whole", "--task", "pawsx", "--xtreme", out, "--store", store]
    assert "7 files" in run(*exported)
    (labels / "pawsx").mkdir(parents=True)
    for lang in get_task("pawsx").languages:
        gold = pq.read_table(paws / "pawsx" / lang / "test.parquet")["label"].to_pylist()
        (labels / "pawsx" / f"test-{lang}.tsv").write_text("".join(f"{label}\n" for label in gold))
    scored = json.loads(run("score", "--predictions", out, "--labels", labels, "--by-language", "--json"))
    ours = {r["language"]: r["value"] for r in json.loads(run("compare", "whole", "--store", store, "--json"))}
    languages = scored["tasks"]["pawsx"]["languages"]
    assert {lang: values["accuracy"] for lang, values in languages.items()} == pytest.approx(ours)

    before = contents(out)
    assert "7 files" in run(*exported), "the very same files may be written again"
    assert str(out) in refused("export", "other", "--task", "pawsx", "--xtreme", out, "--store", store)
    (out / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(*exported)
    assert contents(out) == before | {"notes.txt": b"mine"}
    assert not list(tmp_path.glob(".*"))


def test_a_study_with_a_users_task_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    cell = {
        "regime": "full",
        "composition": "none",
        "intermediate": "",
        "seed": 0,
        "repeats": False,
        "evaluation": "0" * 64,
    }
    cells = [cell | {"target": target} for target in ("xnli", "topics")]
    Store(tmp_path / "store").write_study("mixed", {"recipe": {}, "setting": "", "cells": cells})
    asked = ["export", "mixed", "--xtreme", tmp_path / "out", "--store", tmp_path / "store"]
    assert "'topics'" in refused(*asked)
    assert "no finished evaluation of xnli" in refused(*asked, "--task", "xnli")
    assert not (tmp_path / "out").exists()


def test_the_help_knows_every_regime_and_composition() -> None:
    shown = run("export", "--help")
    assert [name for pair in COMPOSITIONS.items() for name in (pair[0], *pair[1]) if name not in shown] == []


def test_several_rows_are_told_apart(tmp_path: Path) -> None:
    cell = {"regime": "adapter", "target": "xnli", "seed": 0, "repeats": False, "evaluation": "0" * 64}
    cells = [
        cell | {"composition": "none", "intermediate": ""},
        cell | {"composition": "stack", "intermediate": "mnli"},
    ]
    Store(tmp_path).write_study("two", {"recipe": {}, "setting": "", "cells": cells})
    assert "several rows" in refused("export", "two", "--xtreme", tmp_path / "x", "--store", tmp_path)
    from xadapt_cli import export

    with pytest.raises(
        ValueError, match=r"several rows.*--composition none; .*--composition stack --intermediate mnli"
    ):
        export._one_row("two", cells, {"regime": "adapter", "composition": None, "intermediate": None})
    with pytest.raises(ValueError, match="no such row"):
        export._one_row("two", cells, {"regime": "full", "composition": None, "intermediate": None})
    assert export._one_row("two", cells, {"regime": None, "composition": "stack", "intermediate": None}) == cells[1:]

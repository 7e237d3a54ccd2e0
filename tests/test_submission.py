"""A submission in XTREME's layout: a small one worked by hand, XTREME's own mock, and whatever must be refused.

XTREME's mock (google-research/xtreme, mock_test_data) with the averages of its scorer is read where it lies beside
the project, in shared/xtreme-mock.
"""

import io
import json
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from xadapt.errors import UserError
from xadapt.evaluation.submission import score_submission
from xadapt.evaluation.submission_files import SUBMISSION_TASKS, SubmissionTask
from xadapt.languages import LANGUAGES
from xadapt.metrics import get_metric
from xadapt.tasks import TASKS
from xadapt_cli.app import main

MOCK = Path(__file__).parents[2] / "shared" / "xtreme-mock"


def squad(*questions: tuple[str, list[str]]) -> str:
    """A label file of questions with their gold answers, in SQuAD v1.1's form."""
    qas = [{"id": key, "question": "?", "answers": [{"text": text} for text in texts]} for key, texts in questions]
    return json.dumps({"version": "1.1", "data": [{"paragraphs": [{"context": "", "qas": qas}]}]}, indent=1)


def answers(**predicted: str) -> str:
    return json.dumps(predicted, indent=1)


def lines(text: str) -> str:
    return text.replace(" ", "\n") + "\n"


GOLD_ANSWERS = squad(("q1", ["the red house", "house"]), ("q2", ["Rome"]))
FOUND_ANSWERS = answers(q1="red house!", q2="in Rome")  # exact 1/2; F1 (1 + 2/3) / 2
# what every language's label file holds, and its predictions; {lang} is its code
FILES = {
    "xnli": (lines("neutral entailment neutral contradiction"), lines("neutral entailment entailment neutral")),
    "pawsx": (lines("0 1 1 0"), lines("0 1 1 1")),
    "udpos": ("NOUN\nNOUN\nVERB\n\nDET\n", "NOUN\nVERB\nVERB\n\nDET\n"),  # 3 runs true, 3 found, DET in common
    "panx": ("B-PER\nI-PER\n\nO\nB-LOC\n\n", "B-PER\nI-PER\n\nI-ORG\nI-LOC\n"),  # 2 true, 3 found, 2 in common
    "xquad": (GOLD_ANSWERS, FOUND_ANSWERS),
    "mlqa": (GOLD_ANSWERS, FOUND_ANSWERS),
    "tydiqa": (GOLD_ANSWERS, answers(q1="house")),  # q2 is left out: 0
    "bucc2018": ("{lang}-1\ten-5\n{lang}-2\ten-6\n", "{lang}-1\ten-5\n{lang}-2\ten-7\n{lang}-3\ten-6\n"),
    "tatoeba": (lines("3 1 2 0"), lines("3 1 2 2")),
}


def write(folder: Path, task: SubmissionTask, lang: str, text: str) -> Path:
    path = folder / task.name / f"test-{lang}{task.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("{lang}", lang), encoding="utf-8")
    return path


def fill(folder: Path, *names: str) -> Path:
    """Write folders `labels` and `predictions` with these tasks in all their languages."""
    for task in map(SUBMISSION_TASKS.__getitem__, names):
        gold, found = FILES[task.name]
        for lang in task.languages:
            write(folder / "labels", task, lang, gold)
            write(folder / "predictions", task, lang, found)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """All nine tasks."""
    return fill(tmp_path, *FILES)


def scored(folder: Path) -> Any:
    return score_submission(folder / "predictions", labels=folder / "labels")


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        scored(folder)
    return str(caught.value).replace(str(folder), "")


# ---- numbers


def test_a_small_submission_worked_by_hand(small: Path) -> None:
    # MLQA drops the articles of the context's language only: in German "the" stays
    write(small / "labels", SUBMISSION_TASKS["mlqa"], "de", squad(("q1", ["the red house"]), ("q2", ["Rome"])))
    found = scored(small)
    five_sixths = 100 * (1 + 2 / 3) / 2
    expected = {
        "xnli": {"accuracy": 50},
        "pawsx": {"accuracy": 75},
        "udpos": {"f1": 100 / 3, "precision": 100 / 3, "recall": 100 / 3},
        "panx": {"f1": 80, "precision": 200 / 3, "recall": 100},
        "xquad": {"f1": five_sixths, "exact_match": 50},
        "tydiqa": {"f1": 50, "exact_match": 50},
        "bucc2018": {"f1": 40, "precision": 100 / 3, "recall": 50},
        "tatoeba": {"accuracy": 75},
    }
    for name, averages in expected.items():
        assert found.tasks[name].averages == pytest.approx(averages), name
    mlqa = found.tasks["mlqa"]
    assert mlqa.languages["de"].values == pytest.approx({"exact_match": 0, "f1": 100 * (4 / 5 + 2 / 3) / 2})
    assert found.tasks["xquad"].languages["de"].values["exact_match"] == 50
    assert mlqa.averages["exact_match"] < 50
    assert (found.tasks["tydiqa"].unanswered, mlqa.unanswered) == (9, 0)

    score = {name: task.score for name, task in found.tasks.items()}
    assert score["xquad"] == pytest.approx((50 + five_sixths) / 2)
    assert score["bucc2018"] == pytest.approx(40)
    assert found.groups["classification"] == pytest.approx(62.5)
    assert found.groups["structured prediction"] == pytest.approx((100 / 3 + 80) / 2)
    assert found.groups["retrieval"] == pytest.approx(57.5)
    assert found.overall == pytest.approx(sum(score.values()) / 9)
    assert found.missing == []


def test_the_best_gold_answer_counts(tmp_path: Path) -> None:
    small = fill(tmp_path, "xquad")
    task = SUBMISSION_TASKS["xquad"]
    write(small / "labels", task, "en", squad(("q1", ["house", "blue house"]), ("q2", ["Rome"])))
    assert scored(small).tasks["xquad"].languages["en"].values == pytest.approx(
        {"exact_match": 0, "f1": 100 * (2 / 3 + 2 / 3) / 2}
    )


def test_an_average_is_over_languages_not_over_rows(tmp_path: Path) -> None:
    small = fill(tmp_path, "pawsx")
    task = SUBMISSION_TASKS["pawsx"]
    write(small / "labels", task, "ja", lines("0 1"))
    write(small / "predictions", task, "ja", lines("1 0"))
    found = scored(small).tasks["pawsx"]
    assert found.languages["ja"].values == {"accuracy": 0}
    assert found.score == pytest.approx(75 * 6 / 7)


def test_the_overall_needs_all_nine_tasks_and_a_group_all_of_its_own(small: Path) -> None:
    shutil.rmtree(small / "predictions" / "mlqa")
    found = scored(small)
    assert found.missing == ["mlqa"]
    assert found.overall is None
    assert found.groups["question answering"] is None
    assert found.groups["retrieval"] is not None


def test_a_file_without_a_pair_scores_0_and_no_file_is_refused(tmp_path: Path) -> None:
    small = fill(tmp_path, "bucc2018")
    path = write(small / "predictions", SUBMISSION_TASKS["bucc2018"], "de", "\n")
    found = scored(small).tasks["bucc2018"]
    assert found.languages["de"].values == {"f1": 0, "precision": 0, "recall": 0}
    assert found.averages["f1"] == pytest.approx(40 * 3 / 4)
    path.unlink()
    assert "for de:" in refused(small)


def test_a_part_has_no_means_of_xtremes(small: Path) -> None:
    def part(**chosen: list[str]) -> Any:
        return score_submission(small / "predictions", labels=small / "labels", **chosen)

    whole, some = scored(small), part(languages=["de", "sw"])
    assert (whole.cut, whole.missing) == ({}, [])
    assert list(some.tasks) == [task.name for task in SUBMISSION_TASKS.values() if {"de", "sw"} & set(task.languages)]
    assert some.cut["xnli"] == ["de", "sw"]
    assert some.cut["pawsx"] == ["de"]
    assert some.tasks["bucc2018"].languages == {"de": whole.tasks["bucc2018"].languages["de"]}
    assert some.overall is None
    assert set(some.groups.values()) == {None}
    alone = part(tasks=["pawsx", "xnli"])
    assert (list(alone.tasks), alone.cut, alone.overall) == (["xnli", "pawsx"], {}, None)
    assert alone.groups["classification"] == whole.groups["classification"]
    assert part(tasks=["pawsx"], languages=["de", "en", "es", "fr", "ja", "ko", "zh"]).cut == {}
    # what is not asked for need not be there
    shutil.rmtree(small / "labels" / "panx")
    (small / "predictions" / "xnli" / "test-ur.tsv").unlink()
    assert (
        part(tasks=["xnli"], languages=["de"]).tasks["xnli"].score
        == whole.tasks["xnli"].languages["de"].values["accuracy"]
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--tasks", "xnly"], ["'xnly'", "--tasks", "Did you mean 'xnli'"]),
        (["--tasks", "xnli,panx"], ["'panx'", "xnli"]),
        (["--languages", "de,English"], ["'English'", "--languages"]),
        (["--languages", "ja"], ["'ja'", "--languages"]),
        (["--tasks", ""], ["''", "--tasks"]),
    ],
)
def test_a_part_that_is_not_there(options: list[str], named: list[str], tmp_path: Path) -> None:
    code, out, err = xadapt_score(fill(tmp_path, "xnli"), *options)
    assert (code, out) == (2, "")
    assert [part for part in named if part not in err] == [], err


def test_the_tags_f1_is_the_one_of_our_own_evaluation(tmp_path: Path) -> None:
    small = fill(tmp_path, "udpos")
    labels = SUBMISSION_TASKS["udpos"].valid
    gold, found = (
        [[labels.index(tag) for tag in sentence.split()] for sentence in text.split("\n\n")] for text in FILES["udpos"]
    )
    expected = get_metric("tagging", "f1").function(found, gold, labels)
    assert scored(small).tasks["udpos"].score == pytest.approx(expected)


def test_files_may_end_in_blank_lines_and_carry_a_mark_or_carriage_returns(tmp_path: Path) -> None:
    small = fill(tmp_path, "pawsx", "udpos", "bucc2018")
    before = {name: task.score for name, task in scored(small).tasks.items()}
    for path in (small / "predictions").glob("*/*.tsv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    (small / "predictions" / ".hidden").mkdir()
    (small / "predictions" / "README.md").write_text("words")
    assert {name: task.score for name, task in scored(small).tasks.items()} == before


def test_the_tasks_are_xtremes() -> None:
    assert [len(task.languages) for task in SUBMISSION_TASKS.values()] == [15, 7, 33, 40, 11, 7, 9, 4, 36]
    for task in SUBMISSION_TASKS.values():
        assert set(task.languages) <= set(LANGUAGES)
        if task.name in TASKS:
            assert set(task.languages) == set(TASKS[task.name].languages), task.name


@pytest.mark.skipif(not MOCK.is_dir(), reason="XTREME's mock submission is not beside the project")
def test_xtremes_mock_submission_gets_the_numbers_of_xtremes_scorer() -> None:
    expected = json.loads((MOCK / "expected.json").read_text(encoding="utf-8"))
    found = score_submission(MOCK / "predictions", labels=MOCK / "labels")
    assert set(found.tasks) == set(expected)
    for name, averages in expected.items():
        wanted = {metric.removeprefix("avg_"): value for metric, value in averages.items()}
        assert found.tasks[name].averages == pytest.approx(wanted, abs=1e-9), name
    heads = [
        (task.get("avg_accuracy") or task["avg_f1"] + task.get("avg_exact_match", task["avg_f1"]))
        / (1 if "avg_accuracy" in task else 2)
        for task in expected.values()
    ]
    assert found.overall == pytest.approx(sum(heads) / 9, abs=1e-9)


# ---- what is refused, in one line with file and line


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("xnli", lines("neutral neutral")), ("xnli", lines("entailment entailment entailment")), ("pawsx", "0\n0\n"),
        ("udpos", "X\n\nX\n"), ("udpos", "NOUN\nNOUN\n\nNOUN\n"), ("panx", "O\nO\n\nO\n"), ("tatoeba", "0\n" * 9),
        ("mlqa", squad(("q1", [""]), ("q2", [""]))), ("xquad", squad(("q1", []), ("q2", []))), ("panx", "\n\n"),
        ("pawsx", ""),
    ],
)  # fmt: skip
def test_labels_that_are_placeholders_are_refused(name: str, labels: str, tmp_path: Path) -> None:
    small = fill(tmp_path, name)
    task = SUBMISSION_TASKS[name]
    path = write(small / "labels", task, task.languages[2], labels)
    message = refused(small)
    assert f"/labels/{name}/{path.name}" in message
    assert "XTREME's download strips the labels" in message


def test_two_labels_may_agree_by_chance(tmp_path: Path) -> None:
    small = fill(tmp_path, "udpos")
    write(small / "labels", SUBMISSION_TASKS["udpos"], "et", "NOUN\n\nNOUN\n")
    write(small / "predictions", SUBMISSION_TASKS["udpos"], "et", "NOUN\n\nVERB\n")
    assert scored(small).tasks["udpos"].languages["et"].values["f1"] == 50


TWICE = '{\n "q1": "a",\n "q2": "b",\n "q1": "c"\n}'
GOLD_TWICE = squad(("q1", ["a"]), ("q2", ["b"]), ("q1", ["c"]))


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("xnli", lines("neutral entailment neutral"), ["test-de.tsv, line 4", "3 lines, but 4 in '/labels/xnli/"]),
        ("xnli", lines("neutral neutral neutral neutral neutral"), ["line 5", "5 lines, but 4"]),
        ("xnli", lines("neutral entailment nuetral neutral"), ["line 3", "'nuetral'", "Did you mean 'neutral'"]),
        ("xnli", "neutral\n\nneutral\nneutral\n", ["line 2", "''"]),
        ("xnli", "premise\thypothesis\tneutral\n" * 4, ["line 1", "label 'premise"]),
        ("xnli", "\n\n", ["'/predictions/xnli/test-de.tsv' is empty"]),
        ("pawsx", lines("0 1 2 1"), ["line 3", "'2'", "0, 1"]),
        ("tatoeba", lines("3 1 -2 0"), ["line 3", "'-2'", "number of a line"]),
        ("tatoeba", lines("3 1 ² 0"), ["line 3", "'²'"]),
        ("udpos", "NOUN\nNOUN\nVERB\nDET\n", ["line 4", "a tag, but a sentence's end", "/labels/udpos/test-de.tsv"]),
        ("udpos", "NOUN\n\nNOUN\nVERB\nDET\n", ["line 2", "a sentence's end, but a tag"]),
        ("udpos", "NOUN\nNOUN\nVERB\n", ["line 4", "3 lines, but 5"]),
        ("udpos", "Haus\tNOUN\nNOUN\nVERB\n\nDET\n", ["line 1", "unknown label"]),
        ("panx", "B-PER\nI-PER\n\nO\nB-MISC\n", ["line 5", "'B-MISC'"]),
        ("bucc2018", "de-1\ten-5\nen-6\tde-2\n", ["line 2", "de-<number>, a tab and en-<number>"]),
        ("bucc2018", "de-1\ten-5\nfr-2\ten-6\n", ["line 2", "fr-2"]),
        ("bucc2018", "de-1 en-5\n", ["line 1"]),
        ("bucc2018", "de-1\ten-5\nde-2\ten-6\nde-1\ten-5\n", ["line 3", "line 1 already"]),
        ("xquad", '{"q1": "a",\n "q2" "b"}', ["test-de.json, line 2", "not JSON"]),
        ("xquad", TWICE, ["line 4", "'q1' stands twice"]),
        ("xquad", '{\n "q1": "q9",\n "q9": "b"\n}', ["line 3", "no question 'q9'"]),
        ("xquad", '{"q1": null}', ["line 1", "'q1'", "None"]),
        ("xquad", '["a", "b"]', ["not an object"]),
        ("xquad", "[" * 100_000, ["not JSON", "too deep"]),
        ("xquad", "", ["line 1", "not JSON"]),
    ],
)  # fmt: skip
def test_predictions_that_cannot_be_scored(name: str, text: str, named: list[str], tmp_path: Path) -> None:
    small = fill(tmp_path, name)
    write(small / "predictions", SUBMISSION_TASKS[name], "de", text)
    message = refused(small)
    assert [part for part in ["/predictions/", *named] if part not in message] == [], message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("xnli", lines("neutral entailment neutral nought"), ["test-de.tsv, line 4", "'nought'"]),
        ("xquad", GOLD_TWICE, ["test-de.json, line ", "'q1' stands twice"]),
        ("xquad", '{"data": [{"paragraphs": [{}]}]}', ["SQuAD v1.1", "'qas'"]),
        ("xquad", "3", ["SQuAD v1.1"]),
        ("xquad", '{"data": []}', ["holds no question"]),
        ("xquad", squad(("q1", ["a"])).replace('"a"', "7"), ["line ", "'q1'", "not a text"]),
        ("bucc2018", "de-1\ten-5\nde-1\ten-5\n", ["line 2", "line 1 already"]),
        ("bucc2018", "", ["test-de.tsv' is empty"]),
    ],
)
def test_labels_that_cannot_be_read(name: str, text: str, named: list[str], tmp_path: Path) -> None:
    small = fill(tmp_path, name)
    write(small / "labels", SUBMISSION_TASKS[name], "de", text)
    message = refused(small)
    assert [part for part in ["/labels/", *named] if part not in message] == [], message


def test_the_line_of_a_question_that_stands_twice(tmp_path: Path) -> None:
    small = fill(tmp_path, "xquad")
    path = write(small / "labels", SUBMISSION_TASKS["xquad"], "de", GOLD_TWICE)
    at = [n for n, line in enumerate(path.read_text().splitlines(), start=1) if '"id": "q1"' in line]
    assert f"line {at[1]}:" in refused(small)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    small = fill(tmp_path, "xnli")
    (small / "predictions" / "xnli" / "test-de.tsv").write_bytes("neutral\nentailment\ncafé\n".encode("latin-1"))
    assert re.search(r"test-de\.tsv, line 3: not UTF-8", refused(small))


def test_languages_must_be_the_tasks_own(tmp_path: Path) -> None:
    small = fill(tmp_path, "pawsx")
    for folder in ("predictions", "labels"):
        path = small / folder / "pawsx" / "test-ja.tsv"
        for other, named in (("test-jp.tsv", "'jp'"), ("test-ja.json", "test-<lang>.tsv"), ("dev-ja.tsv", "for ja:")):
            path.rename(path.with_name(other))
            message = refused(small)
            assert f"/{folder}/pawsx" in message
            assert named in message
            path.with_name(other).rename(path)
    shutil.copy(small / "labels" / "pawsx" / "test-de.tsv", small / "labels" / "pawsx" / "test-ru.tsv")
    assert "unknown language 'ru'" in refused(small)


def test_folders_must_be_there(tmp_path: Path) -> None:
    small = fill(tmp_path, "xnli", "panx")
    (small / "predictions" / "xnli").rename(small / "predictions" / "xlni")
    assert "unknown task 'xlni' in /predictions. Did you mean 'xnli'?" in refused(small)
    (small / "predictions" / "xlni").rename(small / "predictions" / "xnli")
    (small / "labels" / "panx").rename(small / "labels" / "ner")
    assert "'/labels/panx'" in refused(small)
    shutil.rmtree(small / "predictions")
    assert "there is no folder '/predictions'" in refused(small)
    (small / "predictions").mkdir()
    assert "holds no folder of a task" in refused(small)


# ---- the command


def xadapt_score(folder: Path, *options: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    given = ["--predictions", str(folder / "predictions"), "--labels", str(folder / "labels"), *options]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["xadapt", "score", *given])
        with pytest.raises(SystemExit) as left:
            main()
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def rows_of(out: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}


def test_the_command_prints_tasks_groups_and_overall(small: Path) -> None:
    code, out, err = xadapt_score(small)
    assert (code, err) == (0, "")
    rows, found = rows_of(out), scored(small)
    assert rows["bucc2018"] == ["4", "40.0", "-", "40.0", "33.3", "50.0", "-"]
    assert rows["classification"] == ["62.5"]
    assert rows["overall"] == [f"{found.overall:.1f}"]
    assert rows["tydiqa:"][-1] == "9"
    assert "ja" not in rows

    shutil.rmtree(small / "predictions" / "panx")
    rows = rows_of(xadapt_score(small, "--by-language")[1])
    assert rows["overall"] == ["-"]
    assert rows["ja"] == ["75.0"]


def test_the_command_prints_json_with_every_digit(small: Path) -> None:
    found = scored(small)
    record = json.loads(xadapt_score(small, "--json")[1])
    assert record["overall"] == found.overall
    assert record["groups"] == found.groups
    assert record["tasks"]["udpos"] == {
        "score": found.tasks["udpos"].score,
        **found.tasks["udpos"].averages,
        "unanswered": 0,
    }
    record = json.loads(xadapt_score(small, "--json", "--by-language")[1])
    assert record["tasks"]["pawsx"]["languages"]["ja"] == {"accuracy": 75}


def test_the_command_says_that_it_scores_a_part_and_by_which_seqeval(small: Path) -> None:
    assert "0.0.12" in xadapt_score(small)[1]
    assert "part" not in xadapt_score(small)[1]
    assert "0.0.12" not in xadapt_score(small, "--tasks", "panx")[1]
    code, out, _ = xadapt_score(small, "--tasks", "udpos,xnli", "--languages", "de,sw")
    assert code == 0
    rows = rows_of(out)
    assert rows["xnli"][:4] == ["2", "of", "15", "50.0"]
    assert rows["udpos"][:3] == ["1", "of", "33"]
    assert rows["overall"] == ["-"]
    said = next(line for line in out.splitlines() if line.startswith("a part"))
    assert [part for part in ("pawsx", "xnli on de sw", "udpos on de") if part not in said] == []

    record = json.loads(xadapt_score(small, "--json", "--tasks", "udpos,xnli", "--languages", "de,sw")[1])
    assert record["part"]["languages"] == {"xnli": ["de", "sw"], "udpos": ["de"]}
    assert set(record["part"]["missing_tasks"]) == set(SUBMISSION_TASKS) - {"xnli", "udpos"}
    assert record["overall"] is None
    record = json.loads(xadapt_score(small, "--json")[1])
    assert (record["part"], record["udpos_f1_as_seqeval"]) == (None, "0.0.12")


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    small = fill(tmp_path, "xnli")
    write(small / "predictions", SUBMISSION_TASKS["xnli"], "de", "premise\thypothesis\n" * 4)
    code, out, err = xadapt_score(small)
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown label")
    assert err.count("\n") == 1
    assert all(char.isprintable() for char in err[:-1])

"""XTREME's group and overall means in the overall table, against plain arithmetic and the scorer of submissions."""

import random
from collections.abc import Callable, Sequence
from statistics import stdev

import pytest
from test_report import printed
from test_scorecard import CONTINUE, NONE, cell, made_up, text, value

from xadapt.analysis.records import Score
from xadapt.analysis.scorecard import Scorecard
from xadapt.evaluation.submission import LanguageScore, SubmissionScore, TaskScore
from xadapt.evaluation.submission_files import SUBMISSION_TASKS
from xadapt.tasks import TASKS

GROUPS = {
    "classification": ["xnli", "pawsx"],
    "structured prediction": ["udpos", "panx"],
    "question answering": ["xquad", "mlqa", "tydiqa"],
    "retrieval": ["bucc2018", "tatoeba"],
}
NINE = [task for tasks in GROUPS.values() for task in tasks]
Points = dict[tuple[str, str, str], float]  # by task, language and metric


def points(seed: int) -> Points:
    """Random points of the nine tasks, in XTREME's languages and every metric."""
    rng = random.Random(seed)
    return {
        (name, lang, metric): rng.uniform(5, 95)
        for name in NINE
        for lang in TASKS[name].languages
        for metric in TASKS[name].metrics
    }


def records(found: Points, row: tuple[str, str, str] = NONE, seed: int = 1) -> list[Score]:
    return [
        made_up(lang, points, row, task=task, metric=metric, main=metric == TASKS[task].main_metric, seed=seed)
        for (task, lang, metric), points in found.items()
    ]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def task_score(found: Points, task: str) -> float:
    def average(metric: str) -> float:
        return mean([value for key, value in found.items() if (key[0], key[2]) == (task, metric)])

    if task == "mlqa":
        return (average("mlqa_exact_match") + average("mlqa_f1")) / 2
    if task in ("xquad", "tydiqa"):
        return (average("exact_match") + average("f1")) / 2
    return average({"udpos": "f1", "panx": "span_f1", "bucc2018": "f1"}.get(task, "accuracy"))


def expected(found: Points) -> dict[str, float]:
    """Every column's number by plain arithmetic: task scores, means of groups, mean of the nine."""
    scores = {task: task_score(found, task) for task in NINE}
    means = {group: mean([scores[task] for task in tasks]) for group, tasks in GROUPS.items()}
    return scores | means | {"XTREME overall": mean(list(scores.values()))}


def submission(found: Points) -> SubmissionScore:
    """The same points as a submission's: its files know MLQA's metrics by SQuAD's names, panx's F1 by f1."""
    names = {"span_f1": "f1", "mlqa_f1": "f1", "mlqa_exact_match": "exact_match"}
    tasks = {}
    for name, task in SUBMISSION_TASKS.items():
        languages = {}
        for lang in task.languages:
            own = {names.get(key[2], key[2]): value for key, value in found.items() if key[:2] == (name, lang)}
            languages[lang] = LanguageScore(dict.fromkeys(task.metrics, 0.0) | own)
        tasks[name] = TaskScore(task, languages)
    return SubmissionScore(tasks)


def test_numbers_worked_by_hand() -> None:
    """All languages of a task alike: xnli 60, pawsx 80, udpos 50, panx 40, F1 70 and exact match 50, 30, 50."""
    flat = {"xnli": 60.0, "pawsx": 80.0, "udpos": 50.0, "panx": 40.0, "bucc2018": 30.0, "tatoeba": 50.0}
    found = {key: flat.get(key[0], 50.0 if "exact" in key[2] else 70.0) for key in points(0)}
    table = Scorecard(records(found)).overall("made up")
    numbers = [text(table, name, "full · none") for name in (*GROUPS, "XTREME overall")]
    assert numbers == ["70.0", "45.0", "60.0", "40.0", "54.4"]  # (60 + 80 + 50 + 40 + 3 * 60 + 30 + 50) / 9


def test_means_are_those_of_plain_arithmetic_and_of_the_scorer_of_submissions() -> None:
    found = points(1)
    table = Scorecard(records(found)).overall("made up")
    numbers = {name: value(table, name, "full · none") for name in expected(found)}
    assert numbers == pytest.approx(expected(found))
    scored = submission(found)
    assert numbers == pytest.approx(
        {name: task.score for name, task in scored.tasks.items()} | scored.groups | {"XTREME overall": scored.overall}
    )
    assert not any(note.mark == "*" for note in table.footnotes)


def test_seeds_and_gains_of_the_means() -> None:
    none, after = {seed: points(seed) for seed in (1, 2, 3)}, {seed: points(10 + seed) for seed in (1, 2, 3)}
    scores = [score for seed, found in none.items() for score in records(found, seed=seed)]
    scores += [score for seed, found in after.items() for score in records(found, CONTINUE, seed)]
    table = Scorecard(scores).overall("made up")
    for name in (*GROUPS, "XTREME overall"):
        theirs = [expected(found)[name] for found in none.values()]
        ours = [expected(found)[name] for found in after.values()]
        gains = [our - their for our, their in zip(ours, theirs, strict=True)]
        found = cell(table, name, "full · continue · mnli")
        assert found is not None
        assert found.gain is not None
        assert (found.value, found.sd) == (pytest.approx(mean(ours)), pytest.approx(stdev(ours)))
        assert (found.gain.value, found.gain.sd) == (pytest.approx(mean(gains)), pytest.approx(stdev(gains)))


@pytest.mark.parametrize(
    ("kept", "columns"),
    [
        (lambda s: s.task in ("xnli", "udpos", "tatoeba"), []),
        (lambda s: s.task in ("xnli", "pawsx", "tatoeba"), ["classification"]),
        (lambda s: s.task != "mlqa", ["classification", "structured prediction", "retrieval"]),
        (lambda s: s.task != "mlqa" or s.metric == "mlqa_f1", ["classification", "structured prediction", "retrieval"]),
        (lambda s: True, [*GROUPS, "XTREME overall"]),
    ],
)
def test_a_mean_has_a_column_only_if_all_of_its_tasks_are_scored(
    kept: Callable[[Score], bool], columns: list[str]
) -> None:
    scores = [score for score in records(points(0)) if kept(score)]
    names = [column.name for column in Scorecard(scores).overall("made up").columns]
    assert names[len({score.task for score in scores}) :] == [*columns, "mean", "gain"]


def test_a_row_that_lacks_a_task_has_no_mean_of_its_group_and_no_overall_one() -> None:
    scores = records(points(0)) + [score for score in records(points(1), CONTINUE) if score.task != "panx"]
    table = Scorecard(scores).overall("made up")
    missing = {c.name for c in table.columns if cell(table, c.name, "full · continue · mnli") is None}
    assert missing == {"panx", "structured prediction", "XTREME overall"}


def test_tasks_split_over_the_rows_give_no_column() -> None:
    scores = [made_up(), made_up(row=CONTINUE, task="pawsx")]
    assert [c.name for c in Scorecard(scores).overall("made up").columns] == ["xnli", "pawsx", "mean", "gain"]


def test_a_users_task_enters_the_mean_and_none_of_xtremes() -> None:
    found = points(2)
    scores = [*records(found), made_up("de", 0.0, task="own")]
    table = Scorecard(scores).overall("made up")
    wanted = expected(found)
    assert {name: value(table, name, "full · none") for name in GROUPS} == pytest.approx({g: wanted[g] for g in GROUPS})
    assert value(table, "XTREME overall", "full · none") == pytest.approx(wanted["XTREME overall"])
    assert value(table, "mean", "full · none") == pytest.approx(wanted["XTREME overall"] * 9 / 10)


def test_means_over_fewer_languages_than_xtremes_are_marked() -> None:
    scores = [score for score in records(points(0)) if score.task != "bucc2018" or score.language == "zh"]
    table = Scorecard(scores).overall("made up")
    marked = {c.name for c in table.columns if "*" in getattr(cell(table, c.name, "full · none"), "marks", "")}
    assert marked == {"retrieval", "XTREME overall"}
    (note,) = [note for note in table.footnotes if note.mark == "*"]
    assert "bucc2018 1 of 4" in note.text


def test_a_language_that_one_row_lacks_is_counted() -> None:
    after = [score for score in records(points(1), CONTINUE) if (score.task, score.language) != ("pawsx", "ja")]
    table = Scorecard(records(points(0)) + after).overall("made up")
    found = cell(table, "classification", "full · continue · mnli")
    assert found is not None
    assert found.coverage == "[21/22]"


def test_a_mean_that_repeats_none_in_part_shows_its_gain_and_one_that_repeats_it_throughout_none() -> None:
    scores = [made_up("de", 60), made_up("de", 60, CONTINUE, repeats=True)]
    scores += [made_up("de", 50, task="pawsx"), made_up("de", 53, CONTINUE, task="pawsx")]
    table = Scorecard(scores).overall("made up")
    shown = {}
    for name in ("xnli", "pawsx", "classification"):
        found = cell(table, name, "full · continue · mnli")
        assert found is not None
        shown[name] = found.shown_gain and found.shown_gain.number
    assert shown == {"xnli": None, "pawsx": "+3.0", "classification": "+1.5"}
    assert "56.5*† (+1.5)" in printed(scores, 300)

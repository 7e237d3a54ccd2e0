"""The scorecard against numbers worked out by hand, and what it must refuse to merge."""

import json
import random
import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest

from xadapt.analysis.records import Score
from xadapt.analysis.scorecard import Scorecard
from xadapt.analysis.table import Cell, Row, Table
from xadapt.errors import UserError
from xadapt.languages import LANGUAGES
from xadapt.tasks import TASKS

NONE = ("full", "none", "")
CONTINUE = ("full", "continue", "mnli")
STACK = ("adapter", "stack", "mnli")
FIVE_ROWS = (NONE, CONTINUE, ("adapter", "none", ""), ("adapter", "continue", "mnli"), STACK)
HOSTILE = "<script>alert(1)</script>\"' + x\u202e\x1b[31m[bold]\nnext"


def made_up(language: str = "de", value: float = 50.0, row: tuple[str, str, str] = NONE, **fields: object) -> Score:
    """A score nobody measured: accuracy of xnli unless told otherwise."""
    family = LANGUAGES[language].family if language in LANGUAGES else "Invented"
    record: dict[str, object] = {
        "task": "xnli", "task_version": 1, "language": language, "family": family, "metric": "accuracy",
        "metric_version": 1, "main": True, "value": value, "n": 100, "regime": row[0], "composition": row[1],
        "intermediate": row[2], "seed": 1, "train_samples": 1000, "setting": "made up",
        "signature": "made up", "stage": "",
    }  # fmt: skip
    record |= fields
    record["stage"] = fields.get("stage", f"{record['task']}-{'-'.join(row)}-{record['seed']}")
    return Score.model_validate(record)


def made_up_study(
    rows: Sequence[tuple[str, str, str]] = FIVE_ROWS,
    tasks: Sequence[str] = ("xnli", "udpos", "tatoeba"),
    seeds: Sequence[int] = (1,),
) -> list[Score]:
    """A study that looks real and is not: random numbers with a level per language and a gain per row."""
    rng = random.Random(0)
    scores: list[Score] = []
    for task in tasks:
        spec = TASKS.get(task, TASKS["xnli"])
        for code in spec.languages:
            level = 88.0 if code == "en" else rng.uniform(35, 82)
            for number, row in enumerate(rows):
                repeats = task == "xnli" and row[2] == "mnli"
                for seed in seeds:
                    value = level - 2.0 * (row[0] == "adapter") + 0.1 * seed
                    value += 0.0 if repeats or not row[2] else rng.uniform(-1, 5) - number
                    common = {"task": task, "seed": seed, "repeats": repeats}
                    for metric in spec.metrics:
                        extra = {"metric": metric, "main": metric == spec.main_metric}
                        scores.append(made_up(code, min(99.0, value + 4 * (metric != "f1")), row, **common, **extra))
    return scores


def cell(table: Table, column: str, label: str, metric: str = "") -> Cell | None:
    """The cell of a table by the names of its column, row and metric."""
    index = [c.name for c in table.columns].index(column)
    lines = [line for line in table.lines if line.row.label == label and metric in ("", line.metric)]
    assert len(lines) == 1
    return lines[0].cells[index]


def value(table: Table, column: str, label: str, metric: str = "") -> float | None:
    found = cell(table, column, label, metric)
    return None if found is None else found.value


def text(table: Table, column: str, label: str) -> str | None:
    found = cell(table, column, label)
    return None if found is None else found.text


def test_overall_is_the_plain_mean_over_languages_with_english() -> None:
    scores = [made_up("en", 80), made_up("de", 70), made_up("sw", 45)]
    scores += [made_up("de", 90, task="udpos", metric="f1"), made_up("de", 10, task="udpos", main=False)]
    table = Scorecard(scores).overall("made up")
    assert [column.label for column in table.columns] == ["xnli (n=3)", "udpos (n=1)", "mean (n=2)", "gain"]
    assert value(table, "xnli", "full · none") == pytest.approx(65)
    assert value(table, "udpos", "full · none") == 90
    assert value(table, "mean", "full · none") == pytest.approx(77.5)


def test_gain_is_over_none_of_the_same_regime() -> None:
    scores = [made_up("de", 60), made_up("de", 63, CONTINUE), made_up("de", 50, ("adapter", "none", ""))]
    scores += [made_up("de", 48.5, STACK), made_up("de", 70, ("lora", "stack", "mnli"))]
    table = Scorecard(scores).overall("made up")
    assert text(table, "gain", "full · continue · mnli") == "+3.0"
    assert text(table, "gain", "adapter · stack · mnli") == "-1.5"
    assert cell(table, "gain", "full · none") is None
    assert cell(table, "gain", "lora · stack · mnli") is None  # no lora none to compare with


def test_mean_over_tasks_takes_only_tasks_every_row_has() -> None:
    scores = [made_up("de", 60), made_up("de", 62, CONTINUE), made_up("de", 99, task="tatoeba")]
    table = Scorecard(scores).overall("made up")
    assert table.columns[2].detail == "over xnli"
    assert value(table, "mean", "full · none") == 60
    assert cell(table, "tatoeba", "full · continue · mnli") is None


def test_no_task_in_every_row_leaves_the_mean_missing() -> None:
    table = Scorecard([made_up(), made_up(row=CONTINUE, task="udpos")]).overall("made up")
    assert table.columns[2].detail == "no task is present in every row"
    assert cell(table, "mean", "full · none") is None


def test_rows_and_targets_keep_their_order() -> None:
    rows = [
        ("lora", "none", ""),
        STACK,
        ("adapter", "continue", "mnli"),
        ("adapter", "none", ""),
        CONTINUE,
        NONE,
    ]
    scores = [made_up(row=row, task=task) for task in ("own", "tatoeba", "udpos", "xnli") for row in rows]
    card = Scorecard(scores)
    assert card.rows("made up") == [Row(*row) for row in (*FIVE_ROWS, ("lora", "none", ""))]
    assert card.tasks("made up") == ["xnli", "udpos", "tatoeba", "own"]


def test_families_stand_by_size_with_english_apart() -> None:
    values = {"en": 90, "de": 70, "ru": 60, "hi": 50, "tr": 40, "kk": 30, "zh": 20}
    table = Scorecard([made_up(code, number) for code, number in values.items()]).families("made up", "xnli")
    labels = ["mean (n=7)", "mean without en (n=6)", "en (n=1)"]
    labels += ["Indo-European (n=3)", "Turkic (n=2)", "Sino-Tibetan (n=1)"]
    assert [column.label for column in table.columns] == labels
    numbers = [found.value for found in table.lines[0].cells if found]
    assert numbers == pytest.approx([360 / 7, 45, 90, 60, 35, 20])


def test_task_without_english_has_no_english_columns() -> None:
    table = Scorecard([made_up("de", task="tatoeba")]).families("made up", "tatoeba")
    assert [column.name for column in table.columns] == ["mean", "Indo-European"]


def test_secondary_metrics_follow_the_main_one() -> None:
    scores = [made_up("de", 90, task="udpos", main=False), made_up("de", 80, task="udpos", metric="f1")]
    table = Scorecard(scores).families("made up", "udpos")
    assert [(line.metric, line.cells[0] and line.cells[0].value) for line in table.lines] == [
        ("f1", 80),
        ("accuracy", 90),
    ]


def test_languages_are_listed_english_first() -> None:
    table = Scorecard([made_up(code) for code in ("sw", "en", "ar")]).languages("made up", "xnli")
    assert [(c.name, c.detail, c.family) for c in table.columns][:2] == [
        ("en", "English", "Indo-European"),
        ("ar", "Arabic", "Afro-Asiatic"),
    ]


def test_seeds_are_averaged_with_their_deviation() -> None:
    scores = [made_up("de", 60, seed=1), made_up("de", 64, seed=2), made_up("sw", 40, seed=1)]
    scores.append(made_up("sw", 40, seed=2))
    found = cell(Scorecard(scores).overall("made up"), "xnli", "full · none")
    assert found is not None
    assert (found.value, found.seeds, found.text) == (51, 2, "51.0 ±1.4")  # 50 and 52: sd = sqrt(2)


def test_gain_deviation_is_paired_by_seed() -> None:
    scores = [made_up("de", v, seed=s) for s, v in ((1, 50.0), (2, 60.0))]
    scores += [made_up("de", v, CONTINUE, seed=s) for s, v in ((1, 53.0), (2, 63.0))]
    assert text(Scorecard(scores).overall("made up"), "gain", "full · continue · mnli") == "+3.0 ±0.0"


def test_gain_takes_only_seeds_both_have() -> None:
    scores = [made_up("de", 50, seed=1), made_up("de", 60, seed=2), made_up("de", 52, CONTINUE, seed=1)]
    scores.append(made_up("de", 58, STACK, seed=7))
    scores.append(made_up("de", 50, ("adapter", "none", ""), seed=8))
    table = Scorecard(scores).overall("made up")
    assert text(table, "gain", "full · continue · mnli") == "+2.0"  # not 52 - 55
    assert text(table, "gain", "adapter · stack · mnli") == "+8.0¶"


def test_seeds_missing_in_some_languages_are_marked_and_left_out_of_the_deviation() -> None:
    scores = [made_up("de", 60, seed=1), made_up("de", 64, seed=2), made_up("sw", 40, seed=1)]
    table = Scorecard(scores).overall("made up")
    assert text(table, "xnli", "full · none") == "51.0§"
    assert [note.mark for note in table.footnotes] == ["§"]


def test_incomplete_means_say_how_many_and_gain_on_shared_languages_only() -> None:
    scores = [made_up("de", 60), made_up("sw", 30), made_up("de", 61, CONTINUE)]
    table = Scorecard(scores).overall("made up")
    assert text(table, "xnli", "full · continue · mnli") == "61.0 [1/2]"
    assert text(table, "gain", "full · continue · mnli") == "+1.0 [1/2]"  # not 61 - 45
    assert text(table, "xnli", "full · none") == "45.0"
    assert "[k/n]" in [note.mark for note in table.footnotes]


def test_repeated_and_collapsed_scores_are_marked_in_every_mean() -> None:
    scores = [made_up("de", 60), made_up("sw", 33.3, collapsed=True)]
    scores += [made_up("de", 60, CONTINUE, repeats=True), made_up("sw", 33.3, CONTINUE, repeats=True)]
    card = Scorecard(scores)
    table = card.overall("made up")
    assert text(table, "xnli", "full · none") == "46.6‡"
    assert text(table, "mean", "full · continue · mnli") == "46.6†"
    assert text(table, "gain", "full · continue · mnli") == "0.0†‡"
    assert any("mnli is xnli's own training data" in note.text for note in table.footnotes)
    assert text(card.languages("made up", "xnli"), "de", "full · none") == "60.0"


def test_rows_that_stand_for_a_test_split_are_marked_in_every_mean() -> None:
    scores = [made_up("de", 60, stand_in="validation"), made_up("sw", 40), made_up("de", 70, task="udpos")]
    card = Scorecard(scores)
    table = card.overall("made up")
    assert [text(table, name, "full · none") for name in ("xnli", "udpos", "mean")] == ["50.0‖", "70.0", "60.0‖"]
    assert [note.text for note in table.footnotes] == [
        "xnli: validation rows stand for a test split that the data lacks"
    ]
    assert text(card.languages("made up", "xnli"), "sw", "full · none") == "40.0"


def test_rows_that_trainings_left_out_are_marked_beside_the_score() -> None:
    table = Scorecard([made_up("de", 50, train_skipped=7), made_up("de", 60, task="udpos")]).overall("made up")
    assert [text(table, name, "full · none") for name in ("xnli", "udpos")] == ["50.0⊖", "60.0"]
    assert any("7 rows" in note.text for note in table.footnotes)


def answers(
    language: str, f1: float, exact: float | None, row: tuple[str, str, str] = NONE, **fields: Any
) -> list[Score]:
    """Both scores of a question answering task, or the first alone."""
    found = [made_up(language, f1, row, metric="f1", **{"task": "xquad"} | fields)]
    if exact is not None:
        found.append(made_up(language, exact, row, metric="exact_match", main=False, **{"task": "xquad"} | fields))
    return found


def test_question_answering_is_scored_by_the_mean_of_exact_match_and_f1() -> None:
    scores = answers("en", 80, 60) + answers("de", 60, 50) + [made_up("en", 90)]
    card = Scorecard(scores)
    table = card.overall("made up")
    assert [column.detail for column in table.columns[:2]] == ["accuracy", "(exact match + F1) / 2"]
    assert value(table, "xquad", "full · none") == pytest.approx(62.5)  # (70 + 55) / 2
    assert value(table, "mean", "full · none") == pytest.approx(76.25)
    families = card.families("made up", "xquad")
    assert [value(families, "mean", "full · none", metric) for metric in ("f1", "exact_match")] == [70, 55]


def test_mlqas_metrics_make_its_score_too() -> None:
    scores = [made_up("de", 70, task="mlqa", metric="mlqa_f1")]
    scores.append(made_up("de", 52, task="mlqa", metric="mlqa_exact_match", main=False))
    table = Scorecard(scores).overall("made up")
    assert (table.columns[0].detail, text(table, "mlqa", "full · none")) == ("(exact match + F1) / 2", "61.0")


def test_a_users_questions_are_scored_by_what_their_spec_measures() -> None:
    table = Scorecard([*answers("de", 70, 50, task="own"), *answers("de", 70, None, task="other")]).overall("made up")
    assert [text(table, name, "full · none") for name in ("own", "other")] == ["60.0", "70.0"]


def test_deviation_and_gain_of_question_answering_are_those_of_the_score() -> None:
    scores = answers("de", 60, 50, seed=1) + answers("de", 70, 40, seed=2)  # 55 and 55, though neither metric stays
    scores += answers("de", 64, 50, CONTINUE, seed=1) + answers("de", 72, 42, CONTINUE, seed=2)
    found = cell(Scorecard(scores).overall("made up"), "xquad", "full · continue · mnli")
    none = cell(Scorecard(scores).overall("made up"), "xquad", "full · none")
    assert none is not None
    assert (none.by_seed, none.text) == ({1: 55, 2: 55}, "55.0 ±0.0")
    assert found is not None
    assert found.gain is not None
    assert (found.by_seed, found.gain.by_seed, found.gain.text) == ({1: 57, 2: 57}, {1: 2, 2: 2}, "+2.0 ±0.0")


def test_a_language_with_one_of_the_two_metrics_is_no_part_of_the_score() -> None:
    table = Scorecard(answers("de", 60, 50) + answers("sw", 90, None)).overall("made up")
    assert text(table, "xquad", "full · none") == "55.0 [1/2]"


def test_two_results_for_one_cell_are_refused_and_never_averaged() -> None:
    with pytest.raises(UserError, match=r"60.*aaaa11.*70.*bbbb22"):
        Scorecard([made_up("de", 60, stage="aaaa11"), made_up("de", 70, stage="bbbb22")])
    with pytest.raises(UserError, match="aaaa11"):
        Scorecard([made_up("de", 60, stage="aaaa11"), made_up("de", 60, stage="bbbb22")])


def test_variants_of_a_row_stand_apart_in_every_mean_and_gain() -> None:
    """Two learning rates: their rows are never averaged, and each gain is over none of its own rate."""
    scores = []
    for rate, none, stack in (("1e-3", 60, 63), ("3e-3", 40, 41)):
        fields: dict[str, Any] = {"variant": f"lr {rate}", "basis": rate}
        scores += [made_up("de", none, ("adapter", "none", ""), stage=f"n{rate}", **fields)]
        scores += [made_up("de", stack, STACK, stage=f"s{rate}", **fields)]
    scores.append(made_up("de", 99, ("adapter", "stack", "squad"), basis="5e-3"))
    table = Scorecard(scores).overall("made up")
    assert {line.row.label: line.cells[0].text for line in table.lines if line.cells[0]} == {
        "adapter · none (lr 1e-3)": "60.0", "adapter · none (lr 3e-3)": "40.0", "adapter · stack · squad": "99.0",
        "adapter · stack · mnli (lr 1e-3)": "63.0", "adapter · stack · mnli (lr 3e-3)": "41.0",
    }  # fmt: skip
    gains = {line.row.label: line.cells[-1].text for line in table.lines if line.cells[-1]}
    assert gains == {"adapter · stack · mnli (lr 1e-3)": "+3.0", "adapter · stack · mnli (lr 3e-3)": "+1.0"}


def test_the_best_single_is_chosen_among_rows_of_the_same_numbers() -> None:
    scores = [
        made_up("de", 60, STACK, basis="a"), made_up("de", 70, ("adapter", "stack", "squad"), basis="b", variant="lr 1"),
        made_up("de", 50, ("adapter", "fusion", "mnli,squad"), basis="a"),
        made_up("de", 55, ("adapter", "fusion", "mnli,squad"), basis="b", variant="lr 1", stage="other"),
    ]  # fmt: skip
    table = Scorecard(scores).overall("made up")
    assert text(table, "xnli", "adapter · best single") == "60.0◊"
    assert text(table, "xnli", "adapter · best single (lr 1)") == "70.0◊"


def test_same_record_twice_counts_once() -> None:
    scores = [made_up("de", 60), made_up("de", 60), made_up("sw", 30)]
    assert value(Scorecard(scores).overall("made up"), "xnli", "full · none") == 45


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([made_up(value=50), made_up(value=51)], "two results"),
        ([made_up(value=float("nan"))], "is nan"),
        ([made_up(), made_up(metric="f1")], "two main metrics"),
    ],
)
def test_contradictions_are_refused(scores: list[Score], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Scorecard(scores)


def test_settings_are_never_mixed() -> None:
    card = Scorecard([made_up("de", 60, setting="b"), made_up("de", 70, setting="a")])
    assert card.settings() == ["b", "a"]
    assert value(card.overall("a"), "xnli", "full · none") == 70
    with pytest.raises(UserError, match="unknown setting 'c'"):
        card.overall("c")
    with pytest.raises(UserError, match="Did you mean 'xnli'"):
        card.families("a", "xnl")


def test_small_negative_gain_is_no_negative_zero() -> None:
    table = Scorecard([made_up("de", 60), made_up("de", 59.99, CONTINUE)]).overall("made up")
    assert text(table, "gain", "full · continue · mnli") == "0.0"


def test_json_holds_tables_and_records() -> None:
    scores = made_up_study(seeds=(1, 2))
    found = json.loads(Scorecard(scores).to_json())
    assert [Score.model_validate(record) for record in found["scores"]] == scores
    first = found["tables"][0]["lines"][0]["cells"][0]
    expected = fmean(score.value for score in scores if (score.task, score.composition) == ("xnli", "none")
                     and score.regime == "full")  # fmt: skip
    assert first["value"] == pytest.approx(expected)


def test_large_study_is_quick() -> None:
    rows = [(regime, "stack", f"task{i}") for regime in ("full", "adapter") for i in range(5)]
    rows += [NONE, ("adapter", "none", "")]
    scores = [
        made_up(code, 50.0, row, task=f"task{number}") for number in range(9) for row in rows for code in LANGUAGES
    ]
    seconds = []
    for _ in range(3):  # the least of three: a machine that does something else only ever adds to it
        start = time.process_time()
        assert len(Scorecard(scores).tables()) == 1 + 9 * 2
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.0


def test_empty_scorecard_has_no_settings() -> None:
    assert Scorecard([]).settings() == []
    assert Scorecard([]).tables() == []

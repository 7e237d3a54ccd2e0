"""Accuracy against scikit-learn, XTREME's tagging F1 against the seqeval it was defined by.

golden/pos_f1.json holds predicted and true tags and the F1 that seqeval 0.0.12, the version XTREME's numbers come
from, gives for the raw tags, in points. It is made again by

    pip install --no-deps --target old seqeval==0.0.12
    PYTHONPATH=old python tests/test_metrics.py
"""

import json
import random
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score

from xadapt.metrics import METRICS, get_metric
from xadapt.tasks import TASKS, get_task

GOLDEN = Path(__file__).parent / "golden" / "pos_f1.json"
UPOS = get_task("udpos").labels

Tags = list[list[str]]


def made_up_cases() -> list[tuple[str, Tags, Tags]]:
    """Name, true and predicted tags: random ones of several kinds, then what a chunk scorer may stumble over."""
    rng = random.Random(12)
    cases: list[tuple[str, Tags, Tags]] = []

    def sentences(draw: Callable[[], str]) -> Tags:
        return [[draw() for _ in range(rng.randint(1, 14))] for _ in range(6)]

    def noisy(gold: Tags, wrong: float, tags: tuple[str, ...]) -> Tags:
        return [[rng.choice(tags) if rng.random() < wrong else tag for tag in sentence] for sentence in gold]

    for number in range(8):
        gold = sentences(lambda: rng.choice(UPOS))
        cases.append((f"all tags, {number}", gold, noisy(gold, number / 8, UPOS)))
    few = {
        "runs": ("NOUN", "VERB"),
        "conjunctions": ("CCONJ", "SCONJ", "ADP"),
        "first letters S and I": ("SCONJ", "SYM", "INTJ", "X"),
        "first letter P": ("PART", "PRON", "PROPN", "PUNCT"),
        "first letters A and N": ("ADJ", "ADP", "ADV", "AUX", "NOUN", "NUM"),
    }
    for name, tags in few.items():
        for number in range(3):
            gold = sentences(lambda tags=tags: rng.choice(tags))  # type: ignore[misc]
            cases.append((f"{name}, {number}", gold, noisy(gold, 0.4, tags)))
    for tag in UPOS:
        gold = [[tag] * 4, [tag], ["NOUN" if tag != "NOUN" else "VERB", tag, tag]]
        cases.append((f"runs of {tag}", gold, [[tag] * 2 + ["X", tag], [tag], [tag, tag, tag]]))
    sconj, cconj = [["SCONJ", "NOUN"]], [["CCONJ", "NOUN"]]
    cases += [
        ("SCONJ taken for CCONJ", sconj, cconj),
        ("SCONJ next to CCONJ", [["SCONJ", "CCONJ", "SCONJ"]], [["CCONJ", "SCONJ", "SCONJ"]]),
        ("all right", [list(UPOS), list(UPOS)[::-1]], [list(UPOS), list(UPOS)[::-1]]),
        ("all wrong", [list(UPOS)], [[*UPOS[1:], UPOS[0]]]),
        ("one word", [["VERB"]], [["VERB"]]),
        ("a run cut in two", [["NOUN"] * 5], [["NOUN", "NOUN", "VERB", "NOUN", "NOUN"]]),
        ("a run across sentences", [["NOUN"], ["NOUN"]], [["NOUN"], ["VERB"]]),
    ]
    return cases


def ids(sentences: Tags) -> list[list[int]]:
    return [[UPOS.index(tag) for tag in sentence] for sentence in sentences]


def words(lines: list[str]) -> Tags:
    return [line.split() for line in lines]


def golden() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("case", golden()["cases"], ids=lambda case: case["name"])
def test_tag_f1_is_that_of_seqeval_0_0_12(case: dict[str, Any]) -> None:
    found = get_metric("tagging", "f1").function(ids(words(case["predicted"])), ids(words(case["true"])), UPOS)
    assert found == pytest.approx(case["f1"], abs=1e-9)


def test_the_golden_cases_are_not_trivial() -> None:
    kept = golden()
    assert kept["seqeval"] == "0.0.12"
    assert {tag for case in kept["cases"] for line in case["true"] for tag in line.split()} == set(UPOS)
    values = {case["f1"] for case in kept["cases"]}
    assert {0.0, 100.0} < values
    assert len(values) > 25
    assert [(c["name"], words(c["true"]), words(c["predicted"])) for c in kept["cases"]] == made_up_cases()


def test_todays_seqeval_gives_another_number_for_raw_tags() -> None:
    """Why the mapping exists: from 1.0 seqeval drops the first letter, so SCONJ and CCONJ are both "CONJ"."""
    from seqeval.metrics import f1_score

    cases = {case["name"]: case for case in golden()["cases"]}
    case = cases["SCONJ taken for CCONJ"]
    with pytest.warns(UserWarning, match="seems not to be NE tag"):
        raw = f1_score(words(case["true"]), words(case["predicted"]))
    assert 100 * raw == pytest.approx(100)
    assert case["f1"] == pytest.approx(50)
    differ = 0
    for case in cases.values():
        with pytest.warns(UserWarning, match="seems not to be NE tag"):
            raw = f1_score(words(case["true"]), words(case["predicted"]))
        differ += abs(100 * raw - case["f1"]) > 1e-9
    assert differ >= 10


def test_tag_f1_counts_runs_not_words() -> None:
    """Three chunks are true, three predicted, one in common, where three of four words are right."""
    gold, predicted = ids([["NOUN", "NOUN", "VERB", "DET"]]), ids([["NOUN", "VERB", "VERB", "DET"]])
    assert get_metric("tagging", "f1").function(predicted, gold, UPOS) == pytest.approx(100 / 3)
    assert get_metric("tagging", "accuracy").function(predicted, gold, UPOS) == 75


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_scikit_learns(seed: int) -> None:
    rng = random.Random(seed)
    gold = [rng.randrange(3) for _ in range(217)]
    predicted = [label if rng.random() < 0.2 * seed else rng.randrange(3) for label in gold]
    expected = 100 * accuracy_score(gold, predicted)
    for format in ("classification", "retrieval"):
        assert get_metric(format, "accuracy").function(predicted, gold, ()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_word_accuracy_is_scikit_learns_over_all_words(seed: int) -> None:
    rng = random.Random(seed)
    gold = [[rng.randrange(17) for _ in range(rng.randint(1, 30))] for _ in range(40)]
    predicted = [[tag if rng.random() < 0.7 else rng.randrange(17) for tag in sentence] for sentence in gold]
    expected = 100 * accuracy_score(list(chain(*gold)), list(chain(*predicted)))
    assert get_metric("tagging", "accuracy").function(predicted, gold, UPOS) == pytest.approx(expected, abs=1e-9)


def test_predictions_that_do_not_match_the_references_in_number_are_refused() -> None:
    with pytest.raises(AssertionError):
        get_metric("classification", "accuracy").function([0, 1], [0], ())
    with pytest.raises(ValueError, match="zip"):
        get_metric("tagging", "accuracy").function([[0]], [[0, 1]], UPOS)
    with pytest.raises(ValueError, match="nconsistent"):
        get_metric("tagging", "f1").function([[0]], [[0, 1]], UPOS)


def test_every_metric_of_every_task_exists_and_has_a_version() -> None:
    wanted = {(task.format, metric) for task in TASKS.values() for metric in task.metrics}
    assert wanted == set(METRICS)
    assert all(metric.version >= 1 for metric in METRICS.values())


def write_golden() -> None:
    from importlib.metadata import version

    from seqeval.metrics import f1_score

    assert version("seqeval") == "0.0.12", "see the docstring"
    cases = [
        {
            "name": name,
            "true": [" ".join(sentence) for sentence in true],
            "predicted": [" ".join(sentence) for sentence in predicted],
            "f1": 100 * float(f1_score(true, predicted)),
        }
        for name, true, predicted in made_up_cases()
    ]
    text = json.dumps({"seqeval": version("seqeval"), "cases": cases}, indent=1, ensure_ascii=False)
    GOLDEN.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden()

"""Accuracy against scikit-learn, chunks against seqeval, answers and mined pairs against numbers worked by hand.

golden/pos_f1.json holds predicted and true tags and the F1 that seqeval 0.0.12, the version XTREME's numbers come
from, gives for the raw tags, in points. It is made again by

    pip install --no-deps --target old seqeval==0.0.12
    PYTHONPATH=old python tests/test_metrics.py
"""

import json
import math
import random
from collections.abc import Callable
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score

from xadapt.errors import UserError
from xadapt.metrics import METRICS, added, get_metric
from xadapt.metrics.chunks import chunk_agreement, chunks
from xadapt.metrics.mining import pair_agreement
from xadapt.metrics.tag_f1 import legacy_prefixed
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
    for format in ("classification", "choice", "retrieval"):
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
    for metric in ("f1", "span_f1"):
        with pytest.raises(ValueError, match="nconsistent"):
            get_metric("tagging", metric).function([[0]], [[0, 1]], UPOS)
    for metric in ("exact_match", "f1", "mlqa_exact_match", "mlqa_f1"):
        with pytest.raises(ValueError, match="zip"):
            get_metric("span", metric).function(["a"], [["a"], ["b"]], ())


def test_every_metric_of_every_task_exists_and_has_a_version() -> None:
    wanted = {(task.format, metric) for task in TASKS.values() for metric in task.metrics}
    assert wanted <= set(METRICS)
    assert all(metric.version >= 1 for metric in METRICS.values())


# ---- blocks

WORDS = ("the Denver", "Broncos of", "x y z", "a", "", "Madrid!", "b c d e f", "g")


def drawn(rng: random.Random, format: str) -> tuple[list[Any], list[Any]]:
    """Predictions and references of some rows, now right and now wrong."""
    rows = rng.randint(1, 60)
    if format == "tagging":
        gold = [[rng.randrange(7) for _ in range(rng.randint(1, 12))] for _ in range(rows)]
        return [[tag if rng.random() < 0.7 else rng.randrange(7) for tag in tags] for tags in gold], gold
    if format == "span":
        answers = [[" ".join(rng.choices(WORDS, k=rng.randint(1, 4))) for _ in range(2)] for _ in range(rows)]
        return [None if rng.random() < 0.1 else " ".join(rng.choices(WORDS, k=3)) for _ in answers], answers
    if format == "mlm":
        hidden = [[(rng.expovariate(0.4), rng.random() < 0.3) for _ in range(rng.randint(0, 5))] for _ in range(rows)]
        return hidden, [None] * rows
    return [rng.randrange(3) for _ in range(rows)], [rng.randrange(3) for _ in range(rows)]


@pytest.mark.parametrize(("format", "name"), [key for key in METRICS if key[0] != "mining"])
def test_blocks_of_rows_add_up_to_the_whole_to_the_last_digit(format: str, name: str) -> None:
    metric, rng = get_metric(format, name), random.Random(3)
    for _ in range(20):
        predictions, references = drawn(rng, format)
        whole = metric.function(predictions, references, ENTITY_TAGS, lang="en")
        for _ in range(5):
            order, size = list(range(len(predictions))), rng.randint(1, 9)
            rng.shuffle(order)
            blocks = [order[at : at + size] for at in range(0, len(order), size)]
            sums = [
                metric.sums([predictions[i] for i in block], [references[i] for i in block], ENTITY_TAGS, lang="en")
                for block in blocks
            ]
            assert metric.points(reduce(added, sums)) == whole


def test_perplexity_is_that_of_the_mean_loss_however_large() -> None:
    perplexity = get_metric("mlm", "perplexity").function
    assert perplexity([[(1.0, True), (2.0, False)], [], [(6.0, False)]], [None] * 3, ()) == math.exp(3)
    assert perplexity([[(math.inf, False), (1.0, True)]], [None], ()) == perplexity([[(1e9, False)]], [None], ()) == math.exp(700)  # fmt: skip
    assert math.isnan(perplexity([[(math.nan, False), (1.0, True)], [(1.0, True)]], [None] * 2, ()))
    assert perplexity([[]], [None], ()) == math.inf


# ---- chunks of named entities

ENTITY_TAGS = ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
IOBES_TAGS = (*ENTITY_TAGS, "E-LOC", "S-LOC", "E-PER", "S-PER")


@pytest.mark.parametrize("tags", [ENTITY_TAGS, IOBES_TAGS, ("O", "I-LOC", "I-PER")], ids=["IOB", "IOBES", "no B-"])
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.9])
def test_chunks_are_counted_as_seqeval_does(tags: tuple[str, ...], wrong: float) -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    rng = random.Random(len(tags))
    for _ in range(40):
        gold = [[rng.choice(tags) for _ in range(rng.randint(1, 12))] for _ in range(4)]
        predicted = [[rng.choice(tags) if rng.random() < wrong else tag for tag in sentence] for sentence in gold]
        found = chunk_agreement(predicted, gold)
        expected = [100 * f(gold, predicted, zero_division=0) for f in (precision_score, recall_score, f1_score)]
        assert [found.precision, found.recall, found.f1] == pytest.approx(expected, abs=1e-9)
        as_ids = [[[tags.index(tag) for tag in sentence] for sentence in rows] for rows in (predicted, gold)]
        assert get_metric("tagging", "span_f1").function(*as_ids, tags) == found.f1


@pytest.mark.parametrize("case", golden()["cases"], ids=lambda case: case["name"])
def test_chunks_of_prefixed_raw_tags_are_those_of_seqeval_0_0_12(case: dict[str, Any]) -> None:
    true, predicted = ([[*map(legacy_prefixed, tags)] for tags in words(case[side])] for side in ("true", "predicted"))
    assert chunk_agreement(predicted, true).f1 == pytest.approx(case["f1"], abs=1e-9)


def test_where_chunks_begin_and_end() -> None:
    def found(tags: str) -> list[tuple[str, int, int]]:
        return list(chunks(tags.split()))

    assert found("O I-LOC I-LOC I-PER B-PER I-PER O") == [("LOC", 1, 3), ("PER", 3, 4), ("PER", 4, 6)]
    assert found("B-ORG B-ORG I-LOC") == [("ORG", 0, 1), ("ORG", 1, 2), ("LOC", 2, 3)]
    assert found("B-PER E-PER I-PER S-PER I-PER") == [("PER", 0, 2), ("PER", 2, 3), ("PER", 3, 4), ("PER", 4, 5)]
    assert found("O O") == found("") == []


def test_precision_and_recall_of_chunks() -> None:
    """Two chunks are true, three predicted, one of them right: B- for I- cuts the second in two."""
    found = chunk_agreement([["B-PER", "O", "B-LOC", "B-LOC"]], [["B-PER", "O", "B-LOC", "I-LOC"]])
    assert (found.common, found.found, found.true) == (1, 3, 2)
    assert (found.precision, found.recall, found.f1) == pytest.approx((100 / 3, 50, 40))
    nothing = chunk_agreement([["O"]], [["O"]])
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


# ---- answers to questions


def span(metric: str, prediction: str | None, *answers: str, lang: str = "en") -> float:
    return get_metric("span", metric).function([prediction], [list(answers)], (), lang=lang)


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("The Denver Broncos!", ["denver broncos"], 100, 100),
        ("Broncos of Denver", ["Denver Broncos"], 0, 80),  # two of three tokens, two of two
        ("Broncos of Denver", ["Denver Broncos", "the broncos of Denver", "x"], 100, 100),
        ("x y", ["y z", "z x y", "q"], 0, 80),  # the best answer: two of two, two of three
        ("a b b b", ["b b c"], 0, 200 * 2 / 6),  # bags: b counts twice; the article is gone
        ("a Madrid", ["Madrid"], 100, 100),  # English articles in every language
        ("die Stadt", ["Stadt"], 0, 200 / 3),
        ("308分", ["308"], 0, 0),  # split on white space only
        ("308分。", ["308分"], 0, 0),  # ASCII punctuation only
        ("it's", ["its"], 100, 100),
        ("Paris", [], 0, 0),
        ("", [], 100, 100),
        ("  ", [""], 100, 100),
        ("Paris", ["", "Paris"], 100, 100),
        ("", ["", "Paris"], 0, 0),
        (None, ["Paris"], 0, 0),
        (None, [], 0, 0),
    ],
)
def test_answers_by_squads_rules(prediction: str | None, answers: list[str], exact: float, f1: float) -> None:
    for lang in ("en", "zh", "fr"):
        assert span("exact_match", prediction, *answers, lang=lang) == exact
        assert span("f1", prediction, *answers, lang=lang) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("lang", "prediction", "answer", "exact", "f1"),
    [
        ("en", "«The» Broncos—", "broncos", 100, 100),
        ("en", "$5 + 3", "5 3", 100, 100),  # ASCII's symbols count as punctuation
        ("es", "¿Las unas?", "", 100, 100),
        ("es", "la casa de los reyes", "casa de reyes", 100, 100),
        ("es", "the casa", "casa", 0, 200 / 3),
        ("de", "Dem Ende des Tages", "ende tages", 100, 100),
        ("de", "keine Häuser", "Häuser", 0, 200 / 3),
        ("vi", "Những của là cái chiếc nhà", "nhà", 100, 100),
        ("hi", "उत्तर पूर्व।", "उत्तर पूर्व", 100, 100),
        ("hi", "a उत्तर", "उत्तर", 0, 200 / 3),
        ("ar", "البيت", "بيت", 100, 100),
        ("ar", "شمال، شرق؟", "شم شرق", 100, 100),  # the article's letters go inside words, too
        ("zh", "308分。", "308", 0, 200 / 3),
        ("zh", "电化 电池", "电化电池", 100, 100),
        ("zh", "化学电池", "电化电池", 0, 75),  # three of four characters, as bags
        ("zh", "NBA球员", "NBA 球星", 0, 200 * 2 / 6),  # a Latin word stays whole
    ],
)
def test_answers_by_mlqas_rules(lang: str, prediction: str, answer: str, exact: float, f1: float) -> None:
    assert span("mlqa_exact_match", prediction, answer, lang=lang) == exact
    assert span("mlqa_f1", prediction, answer, lang=lang) == pytest.approx(f1)
    assert span("mlqa_f1", None, answer, lang=lang) == span("mlqa_exact_match", None, answer, lang=lang) == 0


def test_mlqa_has_no_rules_for_other_languages() -> None:
    with pytest.raises(UserError, match=r"unknown language 'fr' .*Valid: en, es, hi, vi, de, ar, zh"):
        span("mlqa_f1", "x", "x", lang="fr")


def test_answers_are_averaged_over_questions() -> None:
    predictions, references = ["Paris", None, "x y"], [["Paris"], ["Rome"], ["x z"]]
    assert get_metric("span", "exact_match").function(predictions, references, ()) == pytest.approx(100 / 3)
    assert get_metric("span", "f1").function(predictions, references, ()) == pytest.approx(50)


# ---- mined pairs


def test_mined_pairs_are_sets() -> None:
    """Two of three found are true, two of four true are found."""
    found = [("de-1", "en-1"), ("de-2", "en-2"), ("de-3", "en-9")]
    true = [("de-2", "en-2"), ("de-1", "en-1"), ("de-3", "en-3"), ("de-4", "en-4")]
    counted = pair_agreement(found, true)
    assert (counted.precision, counted.recall, counted.f1) == pytest.approx((200 / 3, 50, 400 / 7))
    mined = get_metric("mining", "f1").function
    assert mined(found, true, ()) == mined([*found, found[0]], [list(pair) for pair in true], ()) == counted.f1
    assert mined(found, found, ()) == 100
    assert mined([], true, ()) == mined([("en-1", "de-1")], true, ()) == 0


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

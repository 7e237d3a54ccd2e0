"""What guessing without understanding scores on each task of the embedded suite: the table of docs/suite.md.

Every baseline learns from English train rows and guesses validation rows, where no other rows are named. After a
deliberate change of the suite, `python tests/test_suite_baselines.py` in the repository's root renews the table.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from guessing import (
    PAIR_FEATURES,
    Tagged,
    bayes,
    best_sentence,
    choices_of,
    commonest_tags,
    missing,
    nearest,
    overlap,
    scorer,
    sentences,
    words,
)

from xadapt.data.suite import languages, suite_rows, task_languages
from xadapt.data.suite.inference import LABELS
from xadapt.metrics import get_metric
from xadapt.tasks import TASKS

Row = dict[str, Any]
Found = tuple[float, dict[str, float]]  # by chance, by each baseline; in points
DOCS = Path(__file__).parent.parent / "docs" / "suite.md"
OWN = "own validation rows in 20 languages"
COLUMNS = {"qqp": ("question1", "question2"), "pawsx": ("sentence1", "sentence2"), "squad_v2": ("context", "question")}
PROMPTS = {"hellaswag": ("ctx_a", "ctx_b"), "cosmos_qa": ("context", "question"), "commonsense_qa": ("question",)}
TAGS = {"udpos": "pos_tags", "panx": "ner_tags", "ccg": "tags"}


def pair_examples(task: str, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    first, second = COLUMNS.get(task, ("premise", "hypothesis"))
    return [(row[first], row[second], row.get("label", str(bool(row.get("answers", {}).get("text"))))) for row in rows]


def guess_pairs(task: str, train: Sequence[Row], test: Sequence[Row], *names: str) -> dict[str, float]:
    """Accuracy by the named features, or by all."""
    examples = [pair_examples(task, rows) for rows in (train, test)]
    return {
        name: bayes(*([(PAIR_FEATURES[name](a, b), label) for a, b, label in rows] for rows in examples))
        for name in names or PAIR_FEATURES
    }


def inference(task: str) -> Found:
    if task != "xnli":
        train, test = suite_rows(task, "en", "train", 6000), suite_rows(task, "en", "validation", 900)
        return 100 / len(LABELS), guess_pairs(task, train, test)
    found = guess_pairs(task, suite_rows("mnli", "en", "train", 6000), suite_rows(task, "en", "test", 498))
    own = [
        guess_pairs(task, *(suite_rows(task, lang, split, 498) for split in ("validation", "test")), "second side")
        for lang in languages()
    ]
    return 100 / len(LABELS), found | {f"second side, {OWN}": sum(each["second side"] for each in own) / len(own)}


def pairs(task: str) -> Found:
    train, test = suite_rows(task, "en", "train", 6000), suite_rows(task, "en", "validation", 1000)
    return 50.0, guess_pairs(task, train, test)


def answerable(task: str) -> Found:
    rows = suite_rows(task, "en", "train", 6000), suite_rows(task, "en", "validation", 1000)
    examples = [[([str(missing(a, b))], label) for a, b, label in pair_examples(task, split)] for split in rows]
    return 50.0, guess_pairs(task, *rows) | {"most question words": bayes(*examples)}


def spans(task: str) -> Found:
    """The sentence with the answer, by its place and by the words it shares with the question."""
    rows = [row for row in suite_rows(task, "en", "validation") if row["answers"]["text"]]
    right = [row["context"].count(". ", 0, row["answers"]["answer_start"][0]) for row in rows]
    best = [best_sentence(row["context"], row["question"]) for row in rows]
    found = {
        "first sentence": 100 * right.count(0) / len(rows),
        "most question words": 100 * sum(map(int.__eq__, best, right)) / len(rows),
    }
    return 100 * sum(1 / len(sentences(row["context"])) for row in rows) / len(rows), found


def choice(task: str) -> Found:
    """The choice with the best score: its words alone, those in the prompt, those in the passage's best sentence."""
    train, test = suite_rows(task, "en", "train", 5000), suite_rows(task, "en", "validation", 1000)
    offers = [choices_of(row) for row in train]
    score = scorer([(words(text), str(i == right)) for texts, right in offers for i, text in enumerate(texts)])
    hits: Counter[str] = Counter()
    for row in test:
        offered, gold = choices_of(row)
        prompt = [row[column] for column in PROMPTS[task]]
        ranks: dict[str, list[Any]] = {
            "choices": [score("True", words(text)) - score("False", words(text)) for text in offered],
            "words of the prompt": [overlap(" ".join(prompt), text) for text in offered],
        }
        if len(prompt) == 2:
            sentence = sentences(prompt[0])[best_sentence(*prompt)]
            ranks["words of the best sentence"] = [overlap(sentence, text) for text in offered]
        hits.update(name for name, ranked in ranks.items() if ranked.index(max(ranked)) == gold)
    return 100 / len(offered), {name: 100 * hits[name] / len(test) for name in ranks}


def tagged(task: str, lang: str, split: str, limit: int) -> list[Tagged]:
    return [(row["tokens"], row[TAGS[task]]) for row in suite_rows(task, lang, split, limit)]


def tagging(task: str) -> Found:
    """Accuracy of each word's commonest tag, against that of one tag everywhere, which an unknown word gets too."""

    def guess(lang: str, train: str, test: str, limit: int) -> tuple[float, float]:
        commonest, best = commonest_tags(tagged(task, lang, train, limit))
        told = [pair for tokens, tags in tagged(task, lang, test, 500) for pair in zip(tokens, tags, strict=True)]
        right = sum(best.get(token.lower(), commonest) == tag for token, tag in told)
        return 100 * sum(tag == commonest for _, tag in told) / len(told), 100 * right / len(told)

    chance, accuracy = guess("en", "train", "validation", 3000)
    found = {"most frequent tag": accuracy}
    if task == "udpos":
        own = [guess(lang, "validation", "test", 500)[1] for lang in languages()]
        found[f"most frequent tag, {OWN}"] = sum(own) / len(own)
    return chance, found


def names(task: str) -> Found:
    """F1 of entities by each word's commonest tag, O for an unknown word; O everywhere finds none."""
    test = tagged(task, "en", "validation", 500)
    _, best = commonest_tags(tagged(task, "en", "train", 3000))
    labels = sorted({*best.values(), *(tag for _, tags in test for tag in tags)})
    guessed = [[labels.index(best.get(token.lower(), "O")) for token in tokens] for tokens, _ in test]
    gold = [[labels.index(tag) for tag in tags] for _, tags in test]
    return 0.0, {"most frequent tag": get_metric("tagging", "span_f1").function(guessed, gold, labels)}


def translations(task: str, lang: str) -> tuple[list[str], list[str], list[int]]:
    """Sentences that have a translation, English sentences, and which one is whose translation."""
    rows = suite_rows(task, lang, "validation")
    if task == "tatoeba":
        return [r["source_sentence"] for r in rows], [r["target_sentence"] for r in rows], list(range(len(rows)))
    english = [row for row in rows if row["side"] == "english"]
    place = {row["id"]: i for i, row in enumerate(english)}
    asked = [row for row in rows if row["gold"]]
    return [r["text"] for r in asked], [r["text"] for r in english], [place[r["gold"]] for r in asked]


def retrieval(task: str) -> Found:
    shares = []
    for lang in task_languages(task, "validation"):
        queries, texts, gold = translations(task, lang)
        shares.append(sum(map(int.__eq__, nearest(queries, texts), gold)) / len(gold))
    return 100 / len(texts), {"shared trigrams": 100 * sum(shares) / len(shares)}


# What is guessed in each task, and what guesses it.
TABLE: dict[tuple[str, str], Callable[[str], Found]] = (
    {(task, "label"): inference for task in ("mnli", "anli", "xnli")}
    | {(task, "label"): pairs for task in ("qqp", "pawsx")}
    | {("squad_v2", "has an answer"): answerable}
    | {(task, "sentence of the answer"): spans for task in ("squad", "squad_v2", "xquad", "mlqa", "tydiqa")}
    | {(task, "choice"): choice for task in PROMPTS}
    | {(task, "tag"): tagging for task in ("ccg", "udpos")}
    | {("panx", "entities (F1)"): names}
    | {(task, "translation"): retrieval for task in ("tatoeba", "bucc2018")}
)
# How far from chance a baseline may be, in points; docs/suite.md says why where it is more than NEAR.
NEAR = 5.0
FAR: dict[Callable[[str], Found], dict[str, float]] = {
    inference: {"difference of lengths": 12.0, "shared positions": 30.0},
    pairs: {"shared positions": 20.0},
    answerable: {"most question words": 45.0},
    spans: {"most question words": 75.1},
    choice: {"words of the best sentence": 75.1},
    tagging: {"most frequent tag": 75.0, f"most frequent tag, {OWN}": 75.0},
    names: {"most frequent tag": 50.0},
    retrieval: {"shared trigrams": 20.0},
}


@cache
def documented() -> dict[tuple[str, str], Found]:
    """The table's lines: task, guess, chance, baselines."""
    table = {}
    for line in DOCS.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] in TASKS:
            baselines = (baseline.rpartition(" ") for baseline in cells[3].split("; "))
            table[cells[0], cells[1]] = float(cells[2]), {name: float(value) for name, _, value in baselines}
    return table


@pytest.mark.parametrize(("task", "guess"), TABLE)
def test_baselines_are_the_documented_ones_and_near_chance(task: str, guess: str) -> None:
    guesser = TABLE[task, guess]
    chance, found = guesser(task)
    told_chance, told = documented()[task, guess]
    assert told_chance == pytest.approx(chance, abs=0.06)
    assert told == pytest.approx(found, abs=0.06)
    for name, value in found.items():
        assert abs(value - chance) < FAR.get(guesser, {}).get(name, NEAR), name


def test_every_task_with_labels_has_a_baseline() -> None:
    assert {task for task, _ in TABLE} == set(TASKS) - {"mlm"}
    assert set(documented()) == set(TABLE)


if __name__ == "__main__":
    table = "".join(
        f"| {task} | {guess} | {chance:.1f} | {'; '.join(f'{name} {value:.1f}' for name, value in found.items())} |\n"
        for (task, guess), guesser in TABLE.items()
        for chance, found in [guesser(task)]
    )
    text, lines = re.subn(r"(?<=\|---\|---\|---\|---\|\n)(?:\|.*\n)*", lambda _: table, DOCS.read_text("utf-8"))
    assert lines == 1
    DOCS.write_text(text, "utf-8")

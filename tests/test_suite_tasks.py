"""The embedded suite's tasks beside inference and tags: sizes and golden rows of all, paraphrases, mining, raw text.

The golden rows are regenerated, after a deliberate change of grammar or data (raise SUITE_VERSION where code
changed them), by `python tests/test_suite_tasks.py` in the repository's root.
"""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from guessing import words

from xadapt.data.suite import SUITE_VERSION, languages, suite_rows, suite_size, task_languages
from xadapt.data.suite.grammar import load_language
from xadapt.data.suite.mining import bucc2018
from xadapt.data.suite.paraphrase import blocks
from xadapt.data.suite.scenes import concepts, generator, split_of

GOLDEN = Path(__file__).parent / "golden" / "suite_tasks.json"
INTERMEDIATE = {"train": 50_000, "validation": 1_000}
TARGET = {"train": 50_000, "validation": 500, "test": 500}
SIZES = {
    "anli": INTERMEDIATE,
    "qqp": INTERMEDIATE,
    "pawsx": TARGET,
    "squad": INTERMEDIATE,
    "squad_v2": INTERMEDIATE,
    "xquad": {"validation": 500},
    "mlqa": {"validation": 500, "test": 500},
    "tydiqa": {"train": 50_000, "validation": 500},
    "hellaswag": INTERMEDIATE,
    "cosmos_qa": INTERMEDIATE,
    "commonsense_qa": INTERMEDIATE,
    "panx": TARGET,
    "ccg": INTERMEDIATE,
    "bucc2018": {"validation": 2_000, "test": 2_000},
    "mlm": {"train": 50_000, "validation": 500},
}


def golden_rows() -> dict[str, object]:
    rows = {
        f"{task} {lang}": suite_rows(task, lang, "validation", limit=2)
        for task in SIZES
        for lang in task_languages(task, "validation")
    }
    return {"version": SUITE_VERSION} | rows


def test_rows_are_the_golden_ones() -> None:
    assert golden_rows() == json.loads(GOLDEN.read_text("utf-8"))


@pytest.mark.parametrize(("task", "split"), [(task, split) for task, sizes in SIZES.items() for split in sizes])
def test_sizes_prefix_and_distinct_rows(task: str, split: str) -> None:
    assert suite_size(task, split) == SIZES[task][split]
    lang = task_languages(task, split)[0]
    rows = suite_rows(task, lang, split, 600)
    assert rows[:7] == suite_rows(task, lang, split, limit=7)
    assert len({row["id"] for row in rows}) == len(rows) == min(600, SIZES[task][split])
    bodies = {json.dumps({k: v for k, v in row.items() if k not in ("id", "ind")}) for row in rows}
    assert len(bodies) >= len(rows) * 0.99  # a short sentence or a question may come twice


def test_languages_are_those_of_the_real_data_sets() -> None:
    assert task_languages("pawsx", "test") == ("de", "en", "es", "fr", "ja", "ko", "zh")
    assert task_languages("panx", "validation") == task_languages("mlm", "train") == languages()
    assert task_languages("bucc2018", "test") == ("de", "fr", "ru", "zh")
    assert {"de", "en"} <= set(task_languages("mlqa", "test")) <= {"ar", "de", "en", "es", "hi", "vi", "zh"}
    assert task_languages("tydiqa", "train") == task_languages("squad", "validation") == ("en",)


@pytest.mark.parametrize("lang", task_languages("pawsx", "test"))
def test_paraphrases_hold_the_same_words_under_both_labels(lang: str) -> None:
    language = load_language(lang)
    for split in ("validation", "test"):
        rows = suite_rows("pawsx", lang, split)
        english = suite_rows("pawsx", "en", split)
        assert [(r["id"], r["label"]) for r in rows] == [(r["id"], r["label"]) for r in english]
        for first, second in zip(*[iter(rows)] * 2, strict=True):
            assert first["sentence1"] == second["sentence1"]
            assert {first["label"], second["label"]} == {"different", "paraphrase"}
            sides = [first["sentence1"], first["sentence2"], second["sentence2"]]
            assert len(set(sides)) == 3
    stream = blocks(generator("bags"), "test")
    for block in islice(stream, 300):
        bags = []
        for clauses, order in ((block.clauses, block.orders[1]), (block.exchanged, block.orders[1])):
            tokens = language.coordinated(*clauses, fronted=order.fronted)
            bags.append(Counter(form.lower() for form, _ in tokens))
        assert bags[0] == bags[1]


def test_exchanges_change_the_meaning_and_stay_in_their_split() -> None:
    class_of = {member: name for name, members in concepts().classes.items() for member in members}
    for split in ("train", "validation", "test"):
        for block in islice(blocks(generator("exchange"), split), 500):
            assert set(block.clauses) != set(block.exchanged)
            for scene in (*block.clauses, *block.exchanged):
                assert split_of(scene.agent, scene.verb, class_of[scene.object]) == split
            assert block.orders[0] != block.orders[1]


@pytest.mark.parametrize("task", [task for task, sizes in SIZES.items() if "train" in sizes and task != "panx"])
def test_splits_share_no_text(task: str) -> None:
    columns = {"ccg": ("tokens",), "qqp": ("question1", "question2"), "pawsx": ("sentence1", "sentence2")}
    columns |= {
        "mlm": ("text",),
        "anli": ("premise", "hypothesis"),
        "commonsense_qa": ("question",),
        "hellaswag": ("ctx_a",),
    }
    texts = [
        {str(row[c]) for row in suite_rows(task, "en", split, 1000) for c in columns.get(task, ("context",))}
        for split in ("train", "validation")
    ]
    assert not texts[0] & texts[1]


def test_mining_has_gold_pairs_among_distractors() -> None:
    english = [row["gold"] for row in suite_rows("bucc2018", "de", "test")]
    for lang in task_languages("bucc2018", "test"):
        for split in ("validation", "test"):
            rows = suite_rows("bucc2018", lang, split)
            sides = {side: {r["id"]: r for r in rows if r["side"] == side} for side in ("foreign", "english")}
            assert len(sides["foreign"]) == len(sides["english"]) == 1000
            gold = [r["gold"] for r in sides["foreign"].values() if r["gold"]]
            assert len(gold) == len(set(gold)) == 250
            assert set(gold) <= set(sides["english"])
            assert not any(r["gold"] for r in sides["english"].values())
            assert all(len({r["text"] for r in side.values()}) == 1000 for side in sides.values())
        assert [row["gold"] for row in suite_rows("bucc2018", lang, "test")] == english


def test_gold_pairs_are_translations() -> None:
    """With English on both sides a gold pair has the same words, and no other pair does."""
    rows = list(islice(bucc2018("en", "test"), 800))
    texts = {row["id"]: sorted(words(row["text"])) for row in rows if row["side"] == "english"}
    for row in rows:
        if row["side"] == "foreign":
            assert [i for i, bag in texts.items() if bag == sorted(words(row["text"]))] == [row["gold"]][
                : bool(row["gold"])
            ]


def test_raw_text_has_several_sentences() -> None:
    for lang in task_languages("mlm", "train"):
        rows = suite_rows("mlm", lang, "train", 100)
        assert len({row["text"] for row in rows}) == 100
        assert min(len(row["text"]) for row in rows) > 25


if __name__ == "__main__":
    lines = [f"{json.dumps(key)}: {json.dumps(rows, ensure_ascii=False)}" for key, rows in golden_rows().items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")

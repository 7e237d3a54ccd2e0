"""The embedded suite's pair, span, choice, name, category and mining tasks: sound, balanced, not solvable from cues.

The golden rows are regenerated, after a deliberate change of grammar or data (raise SUITE_VERSION where code
changed them), by `python tests/test_suite_tasks.py` in the repository's root.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from xadapt.data.suite import SUITE_VERSION, languages, suite_rows, suite_size, task_languages
from xadapt.data.suite.grammar import UPOS, load_language
from xadapt.data.suite.grids import diagonal, settings, square
from xadapt.data.suite.mining import bucc2018
from xadapt.data.suite.paraphrase import blocks
from xadapt.data.suite.passages import ASKED, draw_passage, span_of, told
from xadapt.data.suite.scenes import DETAILS, Scene, concepts, generator, split_of

Row = dict[str, Any]
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
SPANS = ("squad", "squad_v2", "xquad", "mlqa", "tydiqa")
CHOICES = ("hellaswag", "cosmos_qa", "commonsense_qa")


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


ASKING = [lang for lang in languages() if load_language(lang).asks]


@pytest.mark.parametrize("lang", ASKING)
def test_answers_are_the_tokens_of_their_slot(lang: str) -> None:
    language, rng = load_language(lang), generator("spans")
    for _ in range(300):
        passage = draw_passage(rng, "test")
        context, spans = told(language, passage)
        sentences = [
            language.marked(scene, fronted=fronted)
            for scene, fronted in zip(passage.scenes, passage.fronted, strict=True)
        ]
        assert context == language.gap.join(language.text(tokens) for tokens, _ in sentences)
        for question, target in passage.questions:
            tokens, slots = sentences[target if target is not None else 0]
            first, last = span_of(passage.kind, slots)
            assert last >= first
            start, end = spans[target or 0]
            assert context[start:end].replace(" ", "") == "".join(f for f, _ in tokens[first : last + 1]).replace(
                " ", ""
            )
            asked = language.question(passage.kind, question)
            assert all(form.strip() == form != "" and tag in UPOS - {"X"} for form, tag in asked)
            assert language.text(asked)[0] == language.text(asked)[0].upper() or not language.text(asked)[0].isalpha()


@pytest.mark.parametrize("task", SPANS)
def test_offsets_are_exact(task: str) -> None:
    for split in SIZES[task]:
        for lang in task_languages(task, split):
            for row in suite_rows(task, lang, split, 500):
                texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
                assert len(texts) == len(starts) == 1 or (task == "squad_v2" and texts == starts == [])
                for text, start in zip(texts, starts, strict=True):
                    assert text
                    assert row["context"][start : start + len(text)] == text == text.strip()


def fits(question: Scene, scene: Scene, asked: str) -> bool:
    """Whether a sentence about the scene answers the question: it is told with "yes" and has all that is named."""
    named = [d for d in ("agent", "verb", "object", *DETAILS) if d != asked and getattr(question, d) is not None]
    # The answer to "what" is the whole phrase, to "who" the person with the trait.
    named = [d for d in named if d not in {"object": ("adjective", "number"), "agent": ("trait",)}.get(asked, ())]
    return not scene.negated and all(getattr(question, d) == getattr(scene, d) for d in named)


@pytest.mark.parametrize("unanswerable", [False, True])
def test_exactly_the_stated_sentence_answers(unanswerable: bool) -> None:
    rng = generator("unique")
    for split in ("train", "validation", "test"):
        for _ in range(1000):
            passage = draw_passage(rng, split, unanswerable=unanswerable)
            for question, target in passage.questions:
                found = [i for i, s in enumerate(passage.scenes) if fits(question, s, ASKED[passage.kind])]
                assert found == ([] if target is None else [target])


def test_half_of_the_questions_have_no_answer_and_their_words_are_in_the_passage() -> None:
    rows = suite_rows("squad_v2", "en", "validation")
    assert sum(not row["answers"]["text"] for row in rows) == len(rows) / 2
    for split in SIZES["squad_v2"]:
        for first, second in zip(*[iter(suite_rows("squad_v2", "en", split, 300))] * 2, strict=True):
            assert first["context"] == second["context"]
            assert {bool(first["answers"]["text"]), bool(second["answers"]["text"])} == {True, False}


def test_span_positions_are_even() -> None:
    """The place of the answering sentence and its kind of question say nothing about each other."""
    rng, places = generator("positions"), Counter[tuple[str, int]]()
    for _ in range(3000):
        passage = draw_passage(rng, "train")
        for _, target in passage.questions:
            if len(passage.scenes) == 4:
                places[passage.kind, target or 0] += 1
    for kind in ASKED:
        total = sum(places[kind, i] for i in range(4))
        assert max(places[kind, i] for i in range(4)) / total < 0.25 + 0.05


@pytest.mark.parametrize("task", SPANS)
def test_span_tasks_are_parallel(task: str) -> None:
    english = suite_rows(task, "en", "validation", 200)
    for lang in task_languages(task, "validation"):
        rows = suite_rows(task, lang, "validation", 200)
        key = [(row["id"], row["title"], bool(row["answers"]["text"])) for row in rows]
        assert key == [(row["id"], row["title"], bool(row["answers"]["text"])) for row in english]


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


def test_grids_stay_in_their_split_and_tell_scenes_apart_only_together() -> None:
    class_of = {member: name for name, members in concepts().classes.items() for member in members}
    rng = generator("grids")
    for split in ("train", "validation", "test"):
        assert len(settings(split)) > 20
        for _ in range(500):
            for grid in (square(rng, split, "place"), diagonal(rng, split, "object")):
                first, second = grid.varied
                owners = {split_of(s.agent, s.verb, class_of[s.object]) for s in grid.scenes}
                assert owners == {split}
                cells = {(getattr(s, first), getattr(s, second)) for s in grid.scenes}
                assert len(cells) == len(grid.scenes) == len({getattr(s, grid.asked) for s in grid.scenes})


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


def choices_of(row: Row) -> tuple[list[str], int]:
    """The choices of a multiple choice row and the index of the right one."""
    if "endings" in row:
        return row["endings"], int(row["label"])
    if "choices" in row:
        return row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
    return [row[f"answer{i}"] for i in range(4)], row["label"]


@pytest.mark.parametrize("task", CHOICES)
def test_choices_are_distinct_and_their_places_balanced(task: str) -> None:
    for split in SIZES[task]:
        rows = suite_rows(task, "en", split, 1000)
        count = len(choices_of(rows[0])[0])
        assert set(Counter(choices_of(row)[1] for row in rows).values()) == {1000 // count}
        assert all(len(set(choices_of(row)[0])) == count for row in rows)


def test_the_right_choice_is_the_one_that_the_passage_tells() -> None:
    for row in suite_rows("hellaswag", "en", "validation", 400):
        sentences = {frozenset(words(s)) for s in row["ctx_a"].split(". ")}
        told_so = [frozenset(words(f"{row['ctx_b']} {ending}")) in sentences for ending in row["endings"]]
        assert told_so == [i == int(row["label"]) for i in range(4)]
    class_of = {
        load_language("en").form("object", m, "form")[0][0]: c for c, ms in concepts().classes.items() for m in ms
    }
    for row in suite_rows("commonsense_qa", "en", "validation", 400):
        texts, right = choices_of(row)
        if "Which of these" in row["question"]:
            kind = class_of[texts[right]]
            assert load_language("en").text(load_language("en").form("object_class", kind, "form")) in row["question"]
        else:
            assert any(word in row["question"] and class_of[word] in texts[right] for word in class_of)


def test_names_are_tagged_in_every_language() -> None:
    english = suite_rows("panx", "en", "test")
    for lang in task_languages("panx", "test"):
        rows = suite_rows("panx", lang, "test")
        for row, other in zip(rows, english, strict=True):
            tags = row["ner_tags"]
            assert len(tags) == len(row["tokens"])
            assert all(not b.startswith("I-") or a[2:] == b[2:] for a, b in pairwise(["O", *tags]))
            begun = sorted(tag for tag in tags if tag[0] == "B")
            assert begun == sorted(tag for tag in other["ner_tags"] if tag[0] == "B")
        used = Counter(tag for row in rows for tag in row["ner_tags"])
        assert set(used) >= {"B-PER", "B-ORG", "I-ORG", "B-LOC", "O"}
        assert min(used["B-PER"], used["B-ORG"], used["B-LOC"]) > 150


def test_places_of_one_split_are_no_other_splits() -> None:
    found = []
    for split in TARGET:
        rows = suite_rows("panx", "en", split, 500)
        pairs = [pair for row in rows for pair in zip(row["tokens"], row["ner_tags"], strict=True)]
        found.append({token for token, tag in pairs if tag.endswith("-LOC")})
    assert len(found[0]) > 10
    assert sum(map(len, found)) == len(set().union(*found))


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


Category = tuple[Any, ...] | str


def parsed(text: str) -> Category:
    """A category as (result, slash, argument), or the name of an atom."""
    depth, at = 0, -1
    for i, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if sign in "/\\" and depth == 0:
            at = i
    if at < 0:
        return parsed(text[1:-1]) if text[0] == "(" else text
    return parsed(text[:at]), text[at], parsed(text[at + 1 :])


def matches(wanted: Category, given: Category) -> bool:
    """Equality, but for S, which stands for an S with any feature."""
    if isinstance(wanted, str) or isinstance(given, str):
        return wanted == given or (wanted == "S" and str(given)[:2] == "S[") or (wanted, given) == ("NP", "N")
    return wanted[1] == given[1] and matches(wanted[0], given[0]) and matches(wanted[2], given[2])


def combined(left: Category, right: Category) -> list[Category]:
    """What two neighbours make by application, composition or the absorption of punctuation."""
    found: list[Category] = []
    if right in (".", ","):
        found.append(left)
    for function, argument, slash in ((left, right, "/"), (right, left, "\\")):
        if isinstance(function, tuple) and function[1] == slash:
            modifies = function[0] == function[2]
            if matches(function[2], argument):
                found.append(argument if modifies else function[0])
            if isinstance(argument, tuple) and argument[1] == "/" and matches(function[2], argument[0]):
                found.append((argument[0] if modifies else function[0], "/", argument[2]))
    return found


def derivations(tags: Sequence[str]) -> set[Category]:
    """All categories that the whole sequence can have, by CKY."""
    n = len(tags)
    chart: dict[tuple[int, int], set[Category]] = {(i, i + 1): {parsed(tag)} for i, tag in enumerate(tags)}
    for width in range(2, n + 1):
        for start in range(n - width + 1):
            end = start + width
            cell: set[Category] = set()
            for cut in range(start + 1, end):
                for left in chart[start, cut]:
                    cell.update(c for right in chart[cut, end] for c in combined(left, right))
                    coordinated = cut + 1 < end and tags[cut] == "conj"
                    cell.update(left for right in chart.get((cut + 1, end), ()) if coordinated and left == right)
            chart[start, end] = cell
    return chart[0, n]


def test_categories_derive_sentences() -> None:
    for split in INTERMEDIATE:
        rows = suite_rows("ccg", "en", split, 150)
        for row in rows:
            assert len(row["tokens"]) == len(row["tags"])
            wanted = "S[wq]" if row["tokens"][-1] == "?" else "S[dcl]"
            assert wanted in derivations(row["tags"]), row
        assert len({tag for row in rows for tag in row["tags"]}) >= 16


def test_the_parser_of_this_test_refuses_wrong_categories() -> None:
    right = ["NP/N", "N", r"(S[dcl]\NP)/NP", "N", "."]
    assert "S[dcl]" in derivations(right)
    for i, wrong in ((0, "N"), (2, r"S[dcl]\NP"), (3, "NP/N")):
        assert "S[dcl]" not in derivations([*right[:i], wrong, *right[i + 1 :]])


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def bayes(train: Sequence[tuple[list[str], str]], test: Sequence[tuple[list[str], str]]) -> float:
    """Accuracy of multinomial naive Bayes with add-one smoothing over (features, label) pairs."""
    score = scorer(train)
    labels = sorted({label for _, label in train})
    return sum(max(labels, key=lambda label: score(label, f)) == gold for f, gold in test) / len(test)


def scorer(train: Sequence[tuple[list[str], str]]) -> Callable[[str, list[str]], float]:
    counts: dict[str, Counter[str]] = {}
    for features, label in train:
        counts.setdefault(label, Counter()).update(features)
    vocabulary = set().union(*counts.values())
    totals = {label: bag.total() + len(vocabulary) for label, bag in counts.items()}
    return lambda label, features: sum(math.log((counts[label][f] + 1) / totals[label]) for f in features)


def shared_positions(first: str, second: str) -> list[str]:
    a, b = words(first), words(second)
    overlap = sum((Counter(a) & Counter(b)).values())
    kept = sum(x == y for x, y in zip(a, b, strict=False))
    return [f"overlap{overlap - len(b)}", f"kept{kept * 4 // len(b)}", f"first{a[0] == b[0]}", f"last{a[-1] == b[-1]}"]


PAIR_FEATURES: dict[str, Callable[[str, str], list[str]]] = {
    "first": lambda a, b: words(a),
    "second": lambda a, b: words(b),
    "bag": lambda a, b: words(a) + words(b),
    "marked bag": lambda a, b: ["a:" + w for w in words(a)] + ["b:" + w for w in words(b)],
    "positions": lambda a, b: [f"{i}:{w}" for i, w in enumerate(words(b))],
    "lengths": lambda a, b: [f"a{len(a)}", f"b{len(b)}", f"d{len(words(a)) - len(words(b))}"],
    "shared positions": shared_positions,
}


def pair_examples(task: str, split: str, limit: int) -> list[tuple[str, str, str]]:
    rows = suite_rows(task, "en", split, limit)
    if task == "squad_v2":
        return [(row["context"], row["question"], str(bool(row["answers"]["text"]))) for row in rows]
    first, second = ("question1", "question2") if task == "qqp" else ("sentence1", "sentence2")
    return [(row[first], row[second], row["label"]) for row in rows]


# A reordered clause takes its words along and an exchange parts them, so how many words keep their place is a
# comparison of the two sides that says something: 66 % in qqp and pawsx, whatever the order.
BOUNDS = {("qqp", "shared positions"): 0.2, ("pawsx", "shared positions"): 0.2}


def pair_baseline(task: str, name: str) -> float:
    features = PAIR_FEATURES[name]
    train, test = (
        [(features(a, b), label) for a, b, label in pair_examples(task, split, limit)]
        for split, limit in (("train", 6000), ("validation", 1000))
    )
    return bayes(train, test)


@pytest.mark.parametrize("name", PAIR_FEATURES)
@pytest.mark.parametrize("task", ["qqp", "pawsx", "squad_v2"])
def test_pairs_have_no_surface_cues(task: str, name: str) -> None:
    assert abs(pair_baseline(task, name) - 1 / 2) < BOUNDS.get((task, name), 0.05)


def overlap(prompt: str, choice: str) -> list[float]:
    return [sum(word in words(prompt) for word in words(choice)) / len(words(choice)), -len(choice)]


def choice_baseline(task: str, name: str) -> float:
    """Accuracy of the choice with the best score, from the choices' words or their words in the prompt."""
    rows = {split: suite_rows(task, "en", split, limit) for split, limit in (("train", 5000), ("validation", 1000))}
    prompt = {"hellaswag": ("ctx_a", "ctx_b"), "cosmos_qa": ("context", "question")}.get(task, ("question",))
    examples = [
        (words(choice), str(i == right))
        for row in rows["train"]
        for choices, right in [choices_of(row)]
        for i, choice in enumerate(choices)
    ]
    score = scorer(examples)
    correct = 0
    for row in rows["validation"]:
        choices, right = choices_of(row)
        text = " ".join(row[column] for column in prompt)
        ranks = {
            "choices": [[score("True", words(c)) - score("False", words(c))] for c in choices],
            "overlap": [overlap(text, c) for c in choices],
        }[name]
        correct += ranks.index(max(ranks)) == right
    return correct / len(rows["validation"])


@pytest.mark.parametrize("name", ["choices", "overlap"])
@pytest.mark.parametrize("task", CHOICES)
def test_choices_have_no_surface_cues(task: str, name: str) -> None:
    chance = 1 / (5 if task == "commonsense_qa" else 4)
    assert abs(choice_baseline(task, name) - chance) < 0.05


if __name__ == "__main__":
    lines = [f"{json.dumps(key)}: {json.dumps(rows, ensure_ascii=False)}" for key, rows in golden_rows().items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")

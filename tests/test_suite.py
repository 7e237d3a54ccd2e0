"""The embedded suite: correct by construction, parallel, balanced, and not solvable from surface cues.

The golden rows are regenerated, after a deliberate change of grammar or data (raise SUITE_VERSION where code
changed them), by `python tests/test_suite.py` in the repository's root.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from xadapt.data.suite import (
    SUITE_VERSION,
    languages,
    suite_identity,
    suite_rows,
    suite_size,
    task_languages,
)
from xadapt.data.suite.grammar import UPOS, load_language
from xadapt.data.suite.inference import LABELS, triples
from xadapt.data.suite.scenes import (
    DETAILS,
    Scene,
    concepts,
    distinct_scenes,
    generator,
    scene_count,
    split_of,
)

GOLDEN = Path(__file__).parent / "golden" / "suite.json"
SIZES = {
    ("mnli", "train"): 50_000,
    ("mnli", "validation"): 1_000,
    ("xnli", "validation"): 500,
    ("xnli", "test"): 500,
    ("udpos", "train"): 50_000,
    ("udpos", "validation"): 500,
    ("udpos", "test"): 500,
    ("tatoeba", "validation"): 500,
}


def golden_rows() -> dict[str, object]:
    rows = {
        f"{task} {split} {lang}": suite_rows(task, lang, split, limit=3)
        for task, split in SIZES
        for lang in task_languages(task, split)
        if split == "test" or task in ("mnli", "tatoeba")
    }
    return {"version": SUITE_VERSION} | rows


def test_rows_are_the_golden_ones() -> None:
    assert golden_rows() == json.loads(GOLDEN.read_text("utf-8"))


@pytest.mark.parametrize(("task", "split"), SIZES)
def test_sizes_columns_and_prefix(task: str, split: str) -> None:
    lang = task_languages(task, split)[0]
    limit = min(suite_size(task, split), 500)
    rows = suite_rows(task, lang, split, limit)
    assert suite_size(task, split) == SIZES[task, split]
    assert rows[:7] == suite_rows(task, lang, split, limit=7)
    assert len({row["id"] for row in rows}) == len(rows) == limit


def test_the_whole_training_set_extends_its_prefix() -> None:
    rows = suite_rows("mnli", "en", "train")
    assert len(rows) == 50_000
    assert rows[:300] == suite_rows("mnli", "en", "train", limit=300)
    assert len({(row["premise"], row["hypothesis"]) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("task", "lang", "split", "named"),
    [
        ("mnly", "en", "train", "mnli"),
        ("mnli", "de", "train", "en"),
        ("tatoeba", "en", "validation", "de"),
        ("xnli", "en", "train", "validation"),
        ("xnli", "xx", "test", "sw"),
    ],
)
def test_unknown_names_are_answered_with_the_valid_ones(task: str, lang: str, split: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        suite_rows(task, lang, split)


def test_the_inventory_is_rich() -> None:
    ids = concepts().ids()
    least = {"role": 20, "verb": 16, "object": 30, "object_class": 6, "adjective": 10, "place": 12, "time": 8}
    assert {kind: len(ids[kind]) >= n for kind, n in least.items()} == dict.fromkeys(least, True)
    assert scene_count() > 10**9
    assert len(suite_identity()) == 64


def every_word() -> Iterator[Scene]:
    """Scenes that together use every concept with every agreement the templates ask for."""
    ids = concepts().ids()
    numbers, adjectives = (None, *ids["number"]), (None, *ids["adjective"])
    for thing, adjective, number in product(ids["object"] + ids["object_class"], adjectives, numbers):
        yield Scene("doctor", "soil", thing, adjective=adjective, number=number)
    for agent, verb in product(ids["role"] + ids["name"], ids["verb"]):
        yield Scene(agent, verb, "apple")
    for role, trait in product(ids["role"], ids["trait"]):
        yield Scene(role, "buy", "apple", trait=trait)
    for place, time in product((None, *ids["place"]), (None, *ids["time"])):
        yield Scene("anna", "buy", "apple", place=place, time=time)


@pytest.mark.parametrize("lang", languages())
def test_every_concept_has_words_and_differs_from_every_other(lang: str) -> None:
    language = load_language(lang)
    wrong = [
        (section, concept)
        for section, ids in concepts().ids().items()
        for concept in set(ids) ^ set(language.sections[section])
    ]
    assert wrong == []
    scenes = list(every_word())
    scenes += [replace(scene, negated=True) for scene in scenes if scene.number is None]
    texts = Counter()
    for scene in dict.fromkeys(scenes):
        tokens = language.tokens(scene)
        assert all(form.strip() == form != "" and tag in UPOS - {"X"} for form, tag in tokens)
        texts[language.text(tokens)] += 1
    assert [text for text, n in texts.items() if n > 1] == []


@pytest.mark.parametrize("lang", languages())
def test_text_is_the_tokens_joined_and_fronting_only_moves_words(lang: str) -> None:
    language = load_language(lang)
    space = language.joiner
    for scene in random.Random(0).sample([s for s in every_word() if s.time], 40):
        for fronted in (False, True):
            tokens = language.tokens(scene, fronted=fronted)
            text = language.text(tokens)
            assert text.replace(" ", "") == "".join(form for form, _ in tokens).replace(" ", "")
            assert text.startswith(tokens[0][0])
            assert space or " " not in text
        plain, moved = (
            Counter(form.lower() for form, _ in language.tokens(scene, fronted=fronted)) for fronted in (False, True)
        )
        assert sum((moved - plain).values()) <= 1  # a comma at most


@pytest.mark.parametrize("split", ["validation", "test"])
def test_inference_is_parallel_and_balanced(split: str) -> None:
    english = suite_rows("xnli", "en", split)
    for start in range(0, 498, 3):
        assert sorted(row["label"] for row in english[start : start + 3]) == sorted(LABELS)
    for lang in languages():
        rows = suite_rows("xnli", lang, split)
        assert [(r["id"], r["label"]) for r in rows] == [(r["id"], r["label"]) for r in english]
        assert len({row["premise"] for row in rows}) == 167
        assert len({(row["premise"], row["hypothesis"]) for row in rows}) == len(rows)


def test_translations_are_distinct_and_aligned() -> None:
    english = None
    for lang in task_languages("tatoeba", "validation"):
        rows = suite_rows("tatoeba", lang, "validation")
        assert {(row["source_lang"], row["target_lang"]) for row in rows} == {(lang, "en")}
        assert len({row["source_sentence"] for row in rows}) == len(rows)
        targets = [row["target_sentence"] for row in rows]
        assert len(set(targets)) == len(rows)
        assert english in (None, targets)
        english = targets


def test_splits_share_no_scene() -> None:
    inventory = concepts()
    class_of = {member: name for name, group in inventory.classes.items() for member in group}
    for split in ("train", "validation", "test"):
        scenes = distinct_scenes(generator("disjoint"), split)
        found = [next(scenes) for _ in range(300)]
        pairs = triples(generator("disjoint"), split)
        for _ in range(300):
            triple = next(pairs)
            found += [triple.premise, *triple.hypotheses.values()]
        owners = {split_of(s.agent, s.verb, class_of.get(s.object, s.object)) for s in found}
        assert owners == {split}
    sentences = [
        {row[side] for row in suite_rows("mnli", "en", split, 1000) for side in ("premise", "hypothesis")}
        for split in ("train", "validation")
    ]
    assert not sentences[0] & sentences[1]


def relation(premise: Scene, hypothesis: Scene) -> str:
    """The label, from a definition of its own: a contrary claim, else an entailed one, else neutral."""
    inventory = concepts()
    if premise.verb == hypothesis.verb and premise.negated != hypothesis.negated:
        return "contradiction"
    pair = next(p for p in inventory.verbs if premise.verb in p.verbs)
    if premise.verb != hypothesis.verb:
        return "contradiction" if hypothesis.verb in pair.verbs else "neutral"
    told = [(getattr(premise, d), getattr(hypothesis, d)) for d in DETAILS]
    if any(p and h and p != h for p, h in told):
        return "contradiction"
    members = inventory.classes.get(hypothesis.object, ())
    covered = premise.object in (hypothesis.object, *members)
    if premise.negated:  # nothing but the agent's trait may be left out under a negation
        kept = replace(premise, trait=None) == replace(hypothesis, trait=None)
        return "entailment" if kept and hypothesis.trait in (None, premise.trait) else "neutral"
    return "entailment" if covered and all(h in (None, p) for p, h in told) else "neutral"


def test_labels_follow_from_the_scenes() -> None:
    stream = triples(generator("labels"), "train")
    for _ in range(2000):
        triple = next(stream)
        for label, hypothesis in triple.hypotheses.items():
            assert relation(triple.premise, hypothesis) == label, (triple.premise, hypothesis)


def test_premise_and_hypothesis_are_about_the_same_thing() -> None:
    families = [{name, *members} for name, members in concepts().classes.items()]
    stream = triples(generator("things"), "train")
    for _ in range(1000):
        triple = next(stream)
        for hypothesis in triple.hypotheses.values():
            assert any({triple.premise.object, hypothesis.object} <= family for family in families)


def words(text: str) -> list[str]:
    return text.lower().rstrip(".").replace(",", "").split()


def test_labels_share_their_surface_operations() -> None:
    rows = suite_rows("mnli", "en", "train", 6000)
    share = {
        label: [
            sum(mark in words(row["hypothesis"]) for row in rows if row["label"] == label) / 2000
            for mark in ("not", "old", "three", "fruits", "apples", "winter", "hospital")
        ]
        for label in LABELS
    }
    for values in zip(*share.values(), strict=True):
        assert max(values) - min(values) < 0.025


if __name__ == "__main__":
    lines = [f"{json.dumps(key)}: {json.dumps(rows, ensure_ascii=False)}" for key, rows in golden_rows().items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")

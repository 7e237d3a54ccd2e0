"""The embedded suite's tagging tasks: tags align, entities are whole, and CCG categories derive their sentences."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from xadapt.data.suite import languages, suite_rows, task_languages
from xadapt.data.suite.grammar import UPOS, load_language
from xadapt.data.suite.scenes import concepts


def test_tagging_aligns_and_tags_are_universal() -> None:
    for lang in languages():
        rows = suite_rows("udpos", lang, "test")
        assert all(len(row["tokens"]) == len(row["pos_tags"]) for row in rows)
        used = {tag for row in rows for tag in row["pos_tags"]}
        ends = {"PUNCT"} if load_language(lang).templates["end"] != "~" else set()  # Thai writes no full stop
        assert {"NOUN", "VERB", "ADJ", "NUM", "PROPN", "CCONJ"} | ends <= used <= UPOS - {"X"}


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


def test_names_are_written_as_the_language_writes_them() -> None:
    marks = {"ar": "،", "ur": "،", "ja": "、", "zh": "，"}
    for lang in languages():
        tokens = {token for row in suite_rows("panx", lang, "test", 300) for token in row["tokens"]}
        assert not any(" " in token for token in tokens)  # PAN-X splits at spaces
        assert tokens & set(",،、，") == {marks.get(lang, ",")}


@pytest.mark.parametrize(
    ("lang", "city", "bank"),
    [
        ("en", "cairo", "Bank of Cairo"),
        ("fr", "athens", "Banque d' Athènes"),
        ("fr", "cairo", "Banque du Caire"),
        ("fi", "helsinki", "Helsingin pankki"),
        ("ru", "rome", "Банк Рима"),
        ("el", "athens", "Τράπεζα της Αθήνας"),
        ("tr", "rome", "Roma Bankası"),
    ],
)
def test_a_city_is_inflected_inside_an_organisation(lang: str, city: str, bank: str) -> None:
    assert " ".join(form for form, _ in load_language(lang).organisation("bank", city)) == bank


@pytest.mark.parametrize("lang", languages())
def test_organisations_differ_and_name_their_city_in_a_form_it_has(lang: str) -> None:
    language = load_language(lang)
    columns = {
        line["form"].partition("{city:")[2].partition("}")[0] for line in language.sections["organisation"].values()
    }
    assert all(columns - {""} <= set(city) for city in language.sections["city"].values())
    made = [tuple(language.organisation(kind, city)) for kind in concepts().organisations for city in concepts().cities]
    assert len(set(made)) == len(made)


def test_places_of_one_split_are_no_other_splits() -> None:
    found = []
    for split in ("train", "validation", "test"):
        rows = suite_rows("panx", "en", split, 500)
        pairs = [pair for row in rows for pair in zip(row["tokens"], row["ner_tags"], strict=True)]
        found.append({token for token, tag in pairs if tag.endswith("-LOC")})
    assert len(found[0]) > 10
    assert sum(map(len, found)) == len(set().union(*found))


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
    """Equality, but for S and NP, which stand for those with any feature, and a noun, which is a noun phrase too."""
    if isinstance(wanted, str) or isinstance(given, str):
        featured = isinstance(given, str) and wanted in ("S", "NP") and given.startswith(f"{wanted}[")
        return wanted == given or featured or (wanted, given) == ("NP", "N")
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
    for split in ("train", "validation"):
        rows = suite_rows("ccg", "en", split, 150)
        for row in rows:
            assert len(row["tokens"]) == len(row["tags"])
            wanted = "S[wq]" if row["tokens"][-1] == "?" else "S[dcl]"
            assert wanted in derivations(row["tags"]), row
        assert len({tag for row in rows for tag in row["tags"]}) >= 16


def test_a_place_that_a_verb_sends_to_belongs_to_the_verb() -> None:
    seen = Counter[str]()
    for row in suite_rows("ccg", "en", "train", 3000):
        seen.update(tag for token, tag in zip(row["tokens"], row["tags"], strict=True) if token == "to")
    assert set(seen) == {r"((S\NP)\(S\NP))/NP"}


def test_the_parser_of_this_test_refuses_wrong_categories() -> None:
    right = ["NP[nb]/N", "N", r"(S[dcl]\NP)/NP", "N", "."]
    assert "S[dcl]" in derivations(right)
    for i, wrong in ((0, "N"), (2, r"S[dcl]\NP"), (3, "NP[nb]/N")):
        assert "S[dcl]" not in derivations([*right[:i], wrong, *right[i + 1 :]])

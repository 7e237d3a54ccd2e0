"""The language table and the task catalogue are complete, and unknown names are answered with the nearest."""

from collections import Counter
from itertools import chain
from typing import Any

import pytest
from pydantic import ValidationError

from xadapt.errors import UserError
from xadapt.languages import LANGUAGES, by_family, english_first, get_language
from xadapt.metrics import METRICS, get_metric
from xadapt.regimes.specs import COMPOSITIONS
from xadapt.tasks import TASKS, Task, get_task, intermediate_names, target_names
from xadapt.tasks.catalogue import BUILT_IN
from xadapt.tasks.revisions import REVISIONS
from xadapt.tasks.spec import FORMAT_FIELDS, OPTIONAL_FIELDS, fill

# Hu et al. 2020, table 1; the Indo-European branches are listed apart
FAMILIES = {
    "Indo-European": "af bg bn de el en es fa fr hi it mr nl pt ru ur",
    "Austronesian": "id jv ms tl",
    "Dravidian": "ml ta te",
    "Uralic": "et fi hu",
    "Afro-Asiatic": "ar he",
    "Niger-Congo": "sw yo",
    "Sino-Tibetan": "my zh",
    "Turkic": "kk tr",
    "Austro-Asiatic": "vi",
    "Basque": "eu",
    "Japonic": "ja",
    "Kartvelian": "ka",
    "Koreanic": "ko",
    "Kra-Dai": "th",
}
BRANCHES = {
    "Germanic": "af de en nl",
    "Greek": "el",
    "Indo-Aryan": "bn hi mr ur",
    "Iranian": "fa",
    "Romance": "es fr it pt",
    "Slavic": "bg ru",
}
# what XTREME evaluates, also of its tasks that are not in the catalogue yet
XTREME_LANGUAGES = {
    "xnli": "ar bg de el en es fr hi ru sw th tr ur vi zh",
    "pawsx": "de en es fr ja ko zh",
    "udpos": "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh",
    "panx": "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl "
    "tr ur vi yo zh",
    "xquad": "ar de el en es hi ru th tr vi zh",
    "mlqa": "ar de en es hi vi zh",
    "tydiqa": "ar bn en fi id ko ru sw te",
    "bucc2018": "de fr ru zh",
    "tatoeba": "af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr nl pt ru sw ta te th tl tr ur "
    "vi zh",
}
HEADLINES = {"xnli": "accuracy", "pawsx": "accuracy", "udpos": "f1", "panx": "span_f1", "tatoeba": "accuracy"}
EXCEPTIONS: frozenset[str] = frozenset()  # tasks that may be incomplete: none, ever


def test_the_table_has_xtremes_forty_languages() -> None:
    assert list(LANGUAGES) == XTREME_LANGUAGES["panx"].split()
    assert all(code == language.code for code, language in LANGUAGES.items())
    assert set().union(*(codes.split() for codes in XTREME_LANGUAGES.values())) == set(LANGUAGES)


def test_families_and_their_members() -> None:
    assert {family: " ".join(sorted(codes)) for family, codes in by_family(LANGUAGES).items()} == FAMILIES
    sizes = [len(codes) for codes in by_family(LANGUAGES).values()]
    assert sizes == [16, 4, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_branches_divide_indo_european_only() -> None:
    found: dict[str, list[str]] = {}
    for language in LANGUAGES.values():
        if language.branch:
            found.setdefault(language.branch, []).append(language.code)
    assert {branch: " ".join(sorted(codes)) for branch, codes in found.items()} == BRANCHES
    assert sorted(chain.from_iterable(found.values())) == FAMILIES["Indo-European"].split()


def test_codes_and_names_are_unique_and_well_formed() -> None:
    for field, length in (("code", 2), ("iso3", 3), ("script", 4)):
        values = [getattr(language, field) for language in LANGUAGES.values()]
        assert {len(value) for value in values} == {length}
        assert field == "script" or max(Counter(values).values()) == 1
    assert len({language.name for language in LANGUAGES.values()}) == 40
    assert all(language.script.istitle() and language.name.istitle() for language in LANGUAGES.values())


def test_only_yoruba_is_unseen_in_pretraining() -> None:
    assert [language.code for language in LANGUAGES.values() if not language.seen_in_pretraining] == ["yo"]


@pytest.mark.parametrize(("given", "nearest"), [("German", "'de'"), ("swahili", "'sw'"), ("EN", "'en'")])
def test_an_unknown_language_is_answered_with_the_nearest(given: str, nearest: str) -> None:
    with pytest.raises(UserError) as caught:
        get_language(given, place="here")
    assert all(part in str(caught.value) for part in (f"'{given}'", "here", nearest))


def test_english_stands_first() -> None:
    assert english_first(["zh", "af", "en", "de"]) == ["en", "af", "de", "zh"]


@pytest.mark.parametrize("name", sorted(set(TASKS) - EXCEPTIONS))
def test_a_task_is_complete(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.version >= 1
    # a task that is on no hub says where to get it instead
    places = (task.hub.dataset, task.hub.config) if not task.hub.elsewhere else (task.hub.elsewhere,)
    for text in (task.description, task.citation, task.hub.licence, task.mirror, *places):
        assert text.strip(), "an empty field"
    assert task.hub.dataset.count("/") == (0 if task.hub.elsewhere else 1)
    _check_columns_and_labels(task)
    _check_metrics(task)
    _check_languages(task)
    _check_training(task)


def test_every_data_set_of_the_hub_is_read_at_one_commit() -> None:
    parts = [part for task in BUILT_IN.values() for part in (*task.parts, *filter(None, [task.translated]))]
    commits: dict[str, set[str | None]] = {}
    for hub in [part.hub for part in parts if part.hub.dataset]:
        commits.setdefault(hub.dataset, set()).add(hub.revision)
    assert [dataset for dataset, found in commits.items() if len(found) != 1 or None in found] == []
    assert set(commits) == set(REVISIONS), "a commit of nothing"


def _check_columns_and_labels(task: Task) -> None:
    fields = [f for f in FORMAT_FIELDS[task.format] if f in task.columns or f not in OPTIONAL_FIELDS]
    assert list(task.columns) == fields
    assert len(set(task.columns.values())) == len(task.columns), "two fields read one column"
    assert bool(task.labels) == (task.format in ("classification", "tagging", "choice") and not task.open_labels)
    assert set(task.aliases.values()) <= set(task.labels)
    assert set(task.skip) <= set(task.columns)
    assert len(set(task.labels)) == len(task.labels)
    assert sorted(task.source_labels) == sorted(task.labels), "the ids to assume name other labels than the spec's"


def _check_metrics(task: Task) -> None:
    assert task.metrics
    assert task.main_metric == task.metrics[0] == HEADLINES.get(task.name, task.metrics[0])
    for metric in task.metrics:
        assert (task.format, metric) in METRICS
        assert get_metric(task.format, metric).version >= 1


def _check_languages(task: Task) -> None:
    expected = XTREME_LANGUAGES[task.name].split() if task.role == "target" else ["en"]
    assert list(task.languages) == (english_first(LANGUAGES) if task.format == "mlm" else expected)
    assert len(set(task.train_languages)) == len(task.train_languages)
    assert 8 <= task.max_seq_length <= 512
    for place in (task.mirror, task.hub.config + task.hub.id_prefix or task.mirror):
        folders = {fill(place, lang) for lang in task.languages}
        assert not any(set(folder) & set("{}") for folder in folders), "a placeholder was not filled"
        assert len(folders) == len(task.languages), "two languages share a folder"


def _check_training(task: Task) -> None:
    assert all(task.splits.values()), "a split without a name"
    assert all(bool(task.starting_point(regime)) == task.trains for regime in COMPOSITIONS)
    needed = {"test"} if task.role == "target" else set()
    needed |= {"train", "validation"} if task.trains and not task.train_on else set()
    assert needed <= set(task.splits)
    if task.train_on:
        behind = TASKS[task.train_on]
        assert "validation" in set(task.splits) | set(behind.splits)
        assert behind.role == "intermediate"
        assert (behind.format, behind.labels) == (task.format, task.labels)
        assert "train" not in task.splits, "the task would have two training sets"


def test_the_catalogue_has_no_exceptions() -> None:
    assert not EXCEPTIONS
    assert set(intermediate_names()) | set(target_names()) == set(TASKS)
    assert not set(intermediate_names()) & set(target_names())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labels": ("yes", "no", "yes")}, "label stands twice"),
        ({"columns": {"text_a": "premise", "text_b": "hypothesis"}}, "text_a, text_b, label"),
        ({"languages": ("en", "xx")}, "'xx'"),
        ({"name": "../mnli"}, "name"),
        ({"hub": {"dataset": "a/b", "config": "c", "licence": "MIT", "revision": "main"}}, "revision"),
        ({"hub": {"dataset": "a/b", "config": "c"}}, "licence"),
        ({"colums": {}}, "colums"),
        ({"open_labels": True}, "open_labels"),
    ],
)
def test_an_inconsistent_spec_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Task.model_validate(TASKS["mnli"].model_dump() | change)


def test_a_task_is_a_value() -> None:
    with pytest.raises(ValidationError):
        TASKS["mnli"].version = 2  # type: ignore[misc]
    assert Task.model_validate_json(TASKS["udpos"].model_dump_json()) == TASKS["udpos"]


@pytest.mark.parametrize(
    ("given", "role", "nearest"),
    [
        ("udpso", None, "udpos"),
        ("Tatoeba", None, "tatoeba"),
        ("mnl", "intermediate", "mnli"),
        ("xnl", "target", "xnli"),
    ],
)
def test_an_unknown_task_is_answered_with_the_nearest(given: str, role: str | None, nearest: str) -> None:
    with pytest.raises(UserError) as caught:
        get_task(given, place="there", role=role)
    assert all(part in str(caught.value) for part in (f"'{given}'", "there", f"Did you mean '{nearest}'"))


def test_a_task_of_the_other_role_is_unknown() -> None:
    with pytest.raises(UserError, match="Valid: mnli"):
        get_task("xnli", role="intermediate")


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    from xadapt.errors import unknown

    assert "Did you mean 'NOUN'" in str(unknown("label", "noun", ["VERB", "NOUN"], place="here"))
    assert "Did you mean 'Premise'" in str(unknown("column", "premise", ["Premise", "Hypothesis"], place="here"))
    assert "Did you mean" not in str(unknown("label", "quokka", ["VERB", "NOUN"], place="here"))

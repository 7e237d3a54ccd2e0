"""XTREME's own download, read as it lies there: every task, the labels it takes away, and what cannot be used."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from xadapt.data import Rows, open_source
from xadapt.data.bucc import read_bucc
from xadapt.data.xtreme_layout import LAYOUT
from xadapt.errors import UserError
from xadapt.tasks import TASKS, get_task
from xadapt.tasks.spec import Split

NLI = [
    ("It rains.", "It is wet.", "entailment"),
    ('He said "no".', "He spoke.", "neutral"),
    ("A.", "B.", "contradiction"),
]
POS = "It\tPRON\nrains\tVERB\n\nYes\tINTJ\n\n"
NER = "en:Ada\tB-PER\nen:en:x\tO\n\nen::\tO\nen:Rome\tB-LOC\n"
SQUAD: list[dict[str, Any]] = [
    {"context": "Ada lives in Rome.", "qas": [
        {"id": "q1", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 13}]},
        {"id": "q2", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}, {"text": "Ada", "answer_start": 0}]},
    ]},
    {"context": "Köln \U0001f600 liegt am Rhein.", "qas": [
        {"id": "q3", "question": "Wo?", "answers": [{"text": "am Rhein", "answer_start": 13}]},
    ]},
]  # fmt: skip
# task, language, split and file, as PROTOCOL's section on XTREME's layout names them
FILES: list[tuple[str, str, Split, str]] = [
    ("mnli", "en", "train", "xnli/train-en.tsv"), ("mnli", "en", "validation", "xnli/dev-en.tsv"),
    ("xnli", "en", "validation", "xnli/dev-en.tsv"), ("xnli", "sw", "test", "xnli/test-sw.tsv"),
    ("pawsx", "en", "train", "pawsx/train-en.tsv"), ("pawsx", "de", "validation", "pawsx/dev-de.tsv"),
    ("pawsx", "zh", "test", "pawsx/test-zh.tsv"), ("udpos", "en", "train", "udpos/train-en.tsv"),
    ("udpos", "fi", "validation", "udpos/dev-fi.tsv"), ("udpos", "yo", "test", "udpos/test-yo.tsv"),
    ("panx", "en", "train", "panx/train-en.tsv"), ("panx", "de", "validation", "panx/dev-de.tsv"),
    ("panx", "ur", "test", "panx/test-ur.tsv"), ("squad", "en", "train", "squad/train-v1.1.json"),
    ("squad", "en", "validation", "squad/dev-v1.1.json"), ("xquad", "el", "test", "xquad/xquad.el.json"),
    ("mlqa", "vi", "test", "mlqa/MLQA_V1/test/test-context-vi-question-vi.json"),
    ("tydiqa", "en", "train", "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json"),
    ("tydiqa", "en", "validation", "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json"),
    ("tydiqa", "te", "test", "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.te.dev.json"),
]  # fmt: skip


def load(root: Path, task: str, lang: str = "en", split: Split = "test", limit: int | None = None) -> Rows:
    return open_source(f"xtreme:{root}").load(get_task(task), lang, split, limit=limit)


def write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def squad(paragraphs: list[dict[str, Any]] = SQUAD, **changes: Any) -> str:
    """A SQuAD file, a question a line, the last one changed."""
    content = json.loads(json.dumps(paragraphs))
    content[-1]["qas"][-1] |= changes
    text = json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": content}]})
    return text.replace('{"id"', '\n{"id"')


def content_of(task: str) -> str:
    form = get_task(task).format
    if form == "span":
        return squad()
    if form == "tagging":
        return POS if task == "udpos" else NER.replace("en:", "")
    pairs = NLI if task != "pawsx" else [(a, b, str(i % 2)) for i, (a, b, _) in enumerate(NLI)]
    return "".join("\t".join(pair) + "\n" for pair in pairs)


def refused(root: Path, task: str, lang: str, split: Split, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        load(root, task, lang, split)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


# ---- every task


@pytest.mark.parametrize(("task", "lang", "split", "file"), FILES)
def test_a_split_is_the_file_of_xtremes_name(tmp_path: Path, task: str, lang: str, split: Split, file: str) -> None:
    write(tmp_path, file, content_of(task) if task != "tydiqa" else squad(many(20)))
    rows = load(tmp_path, task, lang, split)
    assert rows.identity == open_source(f"xtreme:{tmp_path}").identity(get_task(task), lang, split)
    assert (rows.task, rows.lang, rows.split) == (task, lang, split)
    assert list(rows.columns) == list(get_task(task).columns)
    assert len(load(tmp_path, task, lang, split, limit=1)) == 1


def test_the_files_listed_are_all_there_are() -> None:
    pairs_of_files = {("tatoeba", "test"), ("bucc2018", "validation"), ("bucc2018", "test")}
    assert {(task, split) for task, _, split, _ in FILES} | pairs_of_files == {
        (task, split) for task, splits in LAYOUT.items() for split in splits
    }
    for task, splits in LAYOUT.items():
        assert set(splits) <= set(TASKS[task].splits)


def many(count: int) -> list[dict[str, Any]]:
    return [
        {"context": f"It is {i}.", "qas": [
            {"id": f"q{i}", "question": "What?", "answers": [{"text": str(i), "answer_start": 6}]}
        ]} for i in range(count)
    ]  # fmt: skip


def test_pairs_and_labels(tmp_path: Path) -> None:
    write(tmp_path, "xnli/dev-en.tsv", content_of("xnli"))
    write(tmp_path, "pawsx/dev-en.tsv", "a\tb\t1\nNS\tb\t0\nc\td\t0\n")
    for task in ("mnli", "xnli"):
        rows = load(tmp_path, task, "en", "validation")
        assert list(zip(*rows.columns.values(), strict=True)) == [
            (a, b, TASKS["xnli"].labels.index(label)) for a, b, label in NLI
        ]
    rows = load(tmp_path, "pawsx", "en", "validation")
    assert (rows.columns["label"], rows.skipped) == ([1, 0], 1)


def test_what_a_csv_writer_quoted_is_read_as_it_was(tmp_path: Path) -> None:
    pairs = [(a, f'"{b}', label) for a, b, label in NLI]
    path = tmp_path / "xnli" / "dev-de.tsv"
    path.parent.mkdir()
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows(pairs)
    assert b'""no""' in path.read_bytes()
    assert b"\r\n" in path.read_bytes()
    rows = load(tmp_path, "xnli", "de", "validation")
    assert list(zip(rows.columns["text_a"], rows.columns["text_b"], strict=True)) == [(a, b) for a, b, _ in pairs]


def test_tags_and_sentences(tmp_path: Path) -> None:
    write(tmp_path, "udpos/train-en.tsv", "\ufeff" + POS.replace("\n\n", "\r\n \r\n\r\n"))
    write(tmp_path, "panx/train-en.tsv", NER)
    write(tmp_path, "panx/dev-en.tsv", NER.replace("en:Ada", "Ada"))
    pos, ner = (load(tmp_path, task, split="train") for task in ("udpos", "panx"))
    bare = load(tmp_path, "panx", split="validation")
    assert pos.columns["tokens"] == [["It", "rains"], ["Yes"]]
    assert [[TASKS["udpos"].labels[tag] for tag in tags] for tags in pos.columns["tags"]] == [
        ["PRON", "VERB"],
        ["INTJ"],
    ]
    assert ner.columns["tokens"] == [["Ada", "en:x"], [":", "Rome"]]
    assert bare.columns["tokens"][0] == ["Ada", "en:en:x"], "no prefix where not every token has it"


def test_questions_and_answers(tmp_path: Path) -> None:
    write(tmp_path, "xquad/xquad.de.json", squad())
    columns = load(tmp_path, "xquad", "de").columns
    assert columns["id"] == ["q1", "q2", "q3"]
    assert columns["context"][0] == columns["context"][1] == "Ada lives in Rome."
    assert columns["answers"] == [[("Rome", 13)], [("Ada", 0), ("Ada", 0)], [("am Rhein", 13)]]


def test_a_tenth_of_tydiqas_english_is_held_out(tmp_path: Path) -> None:
    write(tmp_path, "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json", squad(many(20)))
    train, dev = load(tmp_path, "tydiqa", split="train"), load(tmp_path, "tydiqa", split="validation")
    assert (train.columns["id"], dev.columns["id"]) == ([f"q{i}" for i in range(18)], ["q18", "q19"])
    assert train.identity != dev.identity


def test_tatoebas_sides_answer_line_by_line(tmp_path: Path) -> None:
    write(tmp_path, "tatoeba/de-en.de", "Ja.\nNein.\u2028Nie.\n")
    write(tmp_path, "tatoeba/de-en.en", "Yes.\r\nNo.\r\n")
    assert dict(load(tmp_path, "tatoeba", "de").columns) == {
        "source": ["Ja.", "Nein.\u2028Nie."], "target": ["Yes.", "No."]
    }  # fmt: skip


def test_languages_and_identity(tmp_path: Path) -> None:
    source = open_source(f"xtreme:{tmp_path}")
    write(tmp_path, "udpos/test-fi.tsv", POS)
    write(tmp_path, "udpos/dev-de.tsv", POS)
    assert source.languages(TASKS["udpos"]) == ["de", "fi"]
    assert source.count(TASKS["udpos"], "fi", "test") is None
    refused(tmp_path, "udpos", "de", "test", str(tmp_path / "udpos" / "test-de.tsv"), "dev-de.tsv, test-fi.tsv")
    before = source.identity(TASKS["udpos"], "fi", "test")
    write(tmp_path / "moved", "udpos/test-fi.tsv", POS)
    assert open_source(f"xtreme:{tmp_path / 'moved'}").identity(TASKS["udpos"], "fi", "test") == before
    write(tmp_path, "udpos/test-fi.tsv", POS + "No\tINTJ\n")
    assert source.identity(TASKS["udpos"], "fi", "test") != before


@pytest.mark.parametrize("name", ["xtreme:", "xtreme:nowhere/at-all", "xtreme"])
def test_a_folder_that_is_none_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}'"):
        open_source(name)


def test_tasks_and_splits_that_xtreme_has_not(tmp_path: Path) -> None:
    refused(tmp_path, "anli", "en", "train", "'anli'", "Did you mean 'xnli'", "XTREME")
    refused(tmp_path, "xquad", "en", "train", "'train'", "'xquad'")


def test_a_plan_is_made_from_it(tmp_path: Path, tiny_backbone: Path) -> None:
    from xadapt.study.plan import make_plan
    from xadapt.study.recipe import Recipe

    for split in ("train", "dev", "test"):
        write(tmp_path, f"udpos/{split}-en.tsv", POS)
    write(tmp_path, "udpos/test-de.tsv", POS)
    recipe = {"name": "x", "backbone": str(tiny_backbone), "data": f"xtreme:{tmp_path}", "targets": ["udpos"]}
    plan = make_plan(Recipe.model_validate(recipe | {"regimes": {"adapter": {"compositions": ["none"]}}}))
    assert set(plan.stages[-1].spec["languages"]) == {"en", "de"}


# ---- labels that the download took away


@pytest.mark.parametrize(
    ("task", "file", "content"),
    [
        ("xnli", "xnli/test-de.tsv", "".join(f"{a}\t{b}\r\n" for a, b, _ in NLI)),
        ("xnli", "xnli/test-de.tsv", "".join(f"{a}\t{b}\tneutral\n" for a, b, _ in NLI)),
        ("xnli", "xnli/test-de.tsv", "".join(f"{a}\t{b}\t\n" for a, b, _ in NLI)),
        ("xnli", "xnli/test-de.tsv", "".join(f"{a}\t{b}\t-\n" for a, b, _ in NLI)),
        ("pawsx", "pawsx/test-de.tsv", "a\tb\nc\td\n"),
        ("pawsx", "pawsx/test-de.tsv", "a\tb\t0\nc\td\t0\ne\tf\t0\n"),
        ("udpos", "udpos/test-de.tsv", "It\nrains\n\nYes\n"),
        ("udpos", "udpos/test-de.tsv", "It\tX\nrains\tX\n\nYes\tX\n"),
        ("panx", "panx/test-de.tsv", "de:Ada\nde:Rom\n"),
        ("panx", "panx/test-de.tsv", "Ada\tO\nRom\tO\n\nDa\tO\n"),
        ("xquad", "xquad/xquad.de.json", squad(answers=[]).replace('"Rome"', '""').replace('"Ada"', '""')),
        ("mlqa", LAYOUT["mlqa"]["test"][0].format(lang="de"), json.dumps({"data": [{"paragraphs": [
            {"context": p["context"], "qas": [{"id": q["id"], "question": "?", "answers": [{"text": "", "answer_start": 0}]} for q in p["qas"]]}
            for p in SQUAD]}]})),
        ("xquad", "xquad/xquad.de.json", json.dumps({"data": [{"paragraphs": [
            {"context": p["context"], "qas": [{"id": q["id"], "question": "?"} for q in p["qas"]]} for p in SQUAD]}]})),
        ("xquad", "xquad/xquad.de.json", json.dumps({"data": [{"paragraphs": [
            {"context": "a b", "qas": [{"id": f"{i}", "question": "?", "answers": [{"text": "a", "answer_start": 0}]} for i in range(3)]}]}]})),
    ],
)  # fmt: skip
def test_a_test_file_without_its_labels_is_refused(tmp_path: Path, task: str, file: str, content: str) -> None:
    path = write(tmp_path, file, content)
    refused(tmp_path, task, "de", "test", str(path), "xtreme issue 24", "takes the labels out")


def test_a_sorted_english_side_answers_to_nothing(tmp_path: Path) -> None:
    write(tmp_path, "tatoeba/de-en.de", "".join(f"Satz {i}.\n" for i in range(20)))
    path = write(
        tmp_path, "tatoeba/de-en.en", "".join(f"{word}\n" for word in sorted(f"Sentence {i}." for i in range(20)))
    )
    refused(tmp_path, "tatoeba", "de", "test", str(path), "sorted", "xtreme issue 24")


def test_equal_labels_in_training_or_by_chance_are_no_placeholders(tmp_path: Path) -> None:
    write(tmp_path, "pawsx/train-en.tsv", "a\tb\t0\nc\td\t0\ne\tf\t0\n")
    write(tmp_path, "pawsx/test-de.tsv", "a\tb\t0\nc\td\t0\n")
    assert len(load(tmp_path, "pawsx", "en", "train")) == 3
    assert len(load(tmp_path, "pawsx", "de")) == 2


# ---- what cannot be used


@pytest.mark.parametrize("task", ["xnli", "udpos", "tatoeba", "xquad"])
@pytest.mark.parametrize(
    ("content", "parts"),
    [(b"", ["empty"]), (b"\xef\xbb\xbf\r\n \n", ["empty"]), (b"a\nb\xe9c\n", ["line 2", "UTF-8"]), (b"\xed\xa0\x80", ["line 1", "UTF-8"])],
)  # fmt: skip
def test_a_file_that_is_no_text_is_located(tmp_path: Path, task: str, content: bytes, parts: list[str]) -> None:
    for file in LAYOUT[task]["test"]:
        write(tmp_path, file.format(lang="de"), content)
    refused(tmp_path, task, "de", "test", str(tmp_path / LAYOUT[task]["test"][0].format(lang="de")), *parts)


GOOD = "a\tb\tneutral\nc\td\tentailment\n"


@pytest.mark.parametrize(
    ("task", "content", "parts"),
    [
        ("xnli", GOOD + "e\tf\n", ["line 3", "2 columns"]),
        ("xnli", GOOD + "\ne\tf\tneutral\n", ["line 3", "1 columns"]),
        ("xnli", GOOD + "e\tf\tg\tneutral\n", ["line 3", "4 columns"]),
        ("xnli", GOOD + "e\tf\t\n", ["line 3", "column 3", "''"]),
        ("xnli", GOOD + "e\tf\tnetural\n", ["line 3", "column 3", "'netural'", "Did you mean 'neutral'"]),
        ("xnli", "premise\thypothesis\tlabel\n" + GOOD, ["line 1", "'label'"]),
        ("xnli", GOOD + " \tf\tneutral\n", ["line 3", "column 1", "empty"]),
        ("pawsx", "a\t\t1\na\t \t0\n", ["line 2", "column 2", "empty"]),
        ("udpos", "a\tX\n\nb\tVERV\n", ["line 3", "column 2", "'VERV'", "Did you mean 'VERB'"]),
        ("udpos", "a\tX\nb\n", ["line 2", "1 columns"]),
        ("udpos", "a\tX\nb\t\n", ["line 2", "column 2", "empty"]),
        ("udpos", "a\tX\nb\tX\tX\n", ["line 2", "3 columns"]),
        ("panx", "de:a\tO\nde:\tO\nde:b\tB-LOC\n", ["line 2", "column 1", "empty"]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_bad_line_is_located(tmp_path: Path, task: str, content: str, parts: list[str], end: str) -> None:
    path = write(tmp_path, f"{task}/test-de.tsv", content.replace("\n", end))
    refused(tmp_path, task, "de", "test", str(path), *parts)


@pytest.mark.parametrize(
    ("foreign", "english", "parts"),
    [
        ("Ja.\nNein.\n", "Yes.\n", ["de-en.en has 1", "de-en.de has 2", "line 2"]),
        ("Ja.\n\nNein.\n", "Yes.\nNo.\nWell.\n", ["de-en.de, line 2", "empty"]),
        ("Ja.\nNein.\n", "\nNo.\n", ["de-en.en, line 1", "empty"]),
    ],
)
def test_misaligned_sides_are_located(tmp_path: Path, foreign: str, english: str, parts: list[str]) -> None:
    write(tmp_path, "tatoeba/de-en.de", foreign)
    write(tmp_path, "tatoeba/de-en.en", english)
    refused(tmp_path, "tatoeba", "de", "test", *parts)


def test_one_side_alone_is_not_enough(tmp_path: Path) -> None:
    write(tmp_path, "tatoeba/de-en.de", "Ja.\n")
    assert open_source(f"xtreme:{tmp_path}").languages(TASKS["tatoeba"]) == ["de"]
    refused(tmp_path, "tatoeba", "de", "test", "de-en.en", "holds de-en.de")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"answers": [{"text": "am Rhein", "answer_start": 12}]}, ["'q3'", "answers", "character 12", "' am Rhei'"]),
        ({"answers": [{"text": "Elbe", "answer_start": 400}]}, ["'q3'", "character 400", "(of 22)"]),
        ({"answers": [{"text": "Rhein", "answer_start": -6}]}, ["'q3'", "character -6"]),
        ({"answers": [{"text": "", "answer_start": 0}]}, ["'q3'", "''"]),
        ({"answers": [{"text": "Rhein"}]}, ["'q3'", "answer_start"]),
        ({"answers": [{"text": "K", "answer_start": False}]}, ["'q3'", "answer_start"]),
        ({"answers": ["Rhein"]}, ["'q3'", "answer_start"]),
        ({"answers": []}, ["'q3'", "no answer"]),
        ({"answers": None}, ["'q3'", "no answer"]),
        ({"id": "q1"}, ["line 2", "'q1'", "line 4"]),
        ({"question": " "}, ["'q3'", "question", "' '"]),
        ({"question": "\ud800?"}, ["'q3'", "question", "surrogate"]),
    ],
)
def test_a_bad_question_is_located(tmp_path: Path, changes: dict[str, Any], parts: list[str]) -> None:
    path = write(tmp_path, "squad/train-v1.1.json", squad(**changes))
    line = [] if "id" in changes else ["line 4"]
    refused(tmp_path, "squad", "en", "train", str(path), *line, *parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('{"data": [\n{"paragraphs": ]}', ["line 2", "not JSON"]),
        ("[" * 100_000, ["not JSON"]),
        ("[1, 2]", ["'data'"]),
        ('{"data": []}', ["no question"]),
        ('{"data": [{}]}', ["article 0", "'paragraphs'"]),
        ('{"data": [{"paragraphs": [{"context": "a"}]}]}', ["paragraph 0", "'qas'"]),
        ('{"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "?"}]}]}]}', ["question 0", "id"]),
        ('{"data": [{"paragraphs": [{"context": "", "qas": [\n{"id": "q", "question": "?"}]}]}]}', ["line 2", "context"]),
    ],
)  # fmt: skip
def test_json_of_another_form_is_located(tmp_path: Path, content: str, parts: list[str]) -> None:
    path = write(tmp_path, "xquad/xquad.de.json", content)
    refused(tmp_path, "xquad", "de", "test", str(path), *parts)


def test_a_token_of_a_megabyte_is_a_token(tmp_path: Path) -> None:
    write(tmp_path, "udpos/dev-en.tsv", "x" * 1_000_000 + "\tX\n")
    assert len(load(tmp_path, "udpos", "en", "validation").columns["tokens"][0][0]) == 1_000_000


# ---- BUCC


def bucc(root: Path, **changes: str) -> Path:
    files = {"de": "de-1\tJa.\nde-2\tNein.\r\n", "en": "en-1\tNo.\nen-2\tYes.\n", "gold": "de-1\ten-2\n"} | changes
    for suffix, content in files.items():
        if content is not None:
            write(root, f"de-en.dev.{suffix}", content)
    return root


def test_bucc_has_sides_and_pairs(tmp_path: Path) -> None:
    found = read_bucc(bucc(tmp_path), "de", "dev")
    assert found.foreign == [("de-1", "Ja."), ("de-2", "Nein.")]
    assert found.english == [("en-1", "No."), ("en-2", "Yes.")]
    assert found.gold == [("de-1", "en-2")]
    (tmp_path / "de-en.dev.gold").unlink()
    assert read_bucc(tmp_path, "de", "dev").gold is None


@pytest.mark.parametrize(
    ("suffix", "content", "parts"),
    [
        ("de", "", ["empty"]),
        ("de", "de-1 Ja.\n", ["line 1", "a tab"]),
        ("de", "de-1\tJa.\tNein.\n", ["line 1", "a tab"]),
        ("en", "en-1\tNo.\nen-2\t \n", ["line 2", "column 2", "empty"]),
        ("en", "en-1\tNo.\nen-2\tYes.\nen-1\tNo!\n", ["line 3", "'en-1'", "twice"]),
        ("gold", "de-1\ten-2\nde-2\ten-3\n", ["line 2", "'en-3'"]),
        ("gold", "en-2\tde-1\n", ["line 1", "'en-2'"]),
        ("gold", "de-1\ten-2\nde-1\ten-2\n", ["line 2", "twice"]),
    ],
)
def test_a_bad_line_of_bucc_is_located(tmp_path: Path, suffix: str, content: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read_bucc(bucc(tmp_path, **{suffix: content}), "de", "dev")
    assert [p for p in (f"de-en.dev.{suffix}", *parts) if p not in str(caught.value)] == [], str(caught.value)


def test_a_missing_side_of_bucc_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ru-en\.dev\.ru"):
        read_bucc(bucc(tmp_path), "ru", "dev")

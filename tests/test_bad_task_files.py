"""Task files that are none: every one is answered at once, with the file and the key or line, in one line."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
from damage import refused
from test_cli import xadapt

from xadapt.tasks.user import LARGEST, read_task_file

GOOD = """\
name: topics
role: target
format: classification
description: topic of a news item
languages: [en, gsw]
own_languages:
  - {code: gsw, name: Swiss German}
mirror: "topics/{lang}"
columns: {text_a: headline, label: topic}
labels: [business, health]
splits: {train: [train], test: [test]}
metrics: [accuracy]
optimisation:
  full: {learning_rate: 2.0e-5, num_train_epochs: 3}
"""
MORE = "more: [{mirror: x, splits: {train: [train]}, hub: {dataset: '', config: '{foo}', licence: ''}}]\n"


def sub(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def bomb(levels: int = 9) -> str:
    """Lists of lists, of which the last has 9 to the power of `levels` values."""
    names = "abcdefghij"[: levels + 1]
    lists = (f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in pairwise(names))
    return "a: &a [x]\n" + "".join(lists)


@pytest.mark.parametrize("content", [GOOD.encode(), b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode(), GOOD.strip().encode()])  # fmt: skip
def test_a_mark_and_line_ends_change_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    task = read_task_file(tmp_path / "mine.yaml")
    assert (task.name, task.labels, task.languages) == ("topics", ("business", "health"), ("en", "gsw"))


BAD: list[tuple[str | bytes, list[str]]] = [
    # no YAML, or not of one mapping
    ("", ["mapping"]), ("# nothing\n", ["mapping"]), ("- name\n", ["mapping"]), ("name", ["mapping"]),
    (GOOD + "---\n" + GOOD, ["line "]), (GOOD + "\tversion: 2\n", ["line 15"]), (GOOD + "x: [1\n", ["line "]),
    (GOOD.encode() + b"caf\xe9: 1\n", ["line 15", "UTF-8"]), (GOOD.encode("utf-16"), ["line 1", "UTF-8"]),
    (b"\xed\xa0\x80: 1\n", ["line 1", "UTF-8"]), (GOOD + "x: a\0b\n", ["#x0000"]),
    (sub("topic of", "!!python/object/apply:os.abort []\nx: "), ["line 4", "os.abort"]),
    # keys
    (GOOD + "name: other\n", ["line 1", "'name'", "twice"]), (sub("test: [test]", "train: [test]"), ["'train'", "twice"]),
    (GOOD + "colums: {}\n", ["'colums'", "columns"]), (GOOD + "1: 2\n", ["1"]), (GOOD + "null: 2\n", ["None"]),
    (GOOD + "? {a: b}\n: c\n", ["line 15"]), (sub("full:", "fulll:"), ["optimisation", "'fulll'", "'full'"]),
    (sub("train: [", "tarin: ["), ["splits", "tarin"]), (GOOD.replace("name: topics\n", ""), ["name"]),
    # wrong types
    (sub("name: topics", "name: {a: b}"), ["name"]), (sub("name: topics", "name: [a]"), ["name"]),
    (sub("[business, health]", "business"), ["labels", "list"]), (sub("[business, health]", "[yes, no]"), ["labels.0", "True"]),
    (sub("[business, health]", "[1, 2]"), ["labels.0", "1"]), (sub("health]", "null]"), ["labels.1", "None"]),
    (sub("health]", '" "]'), ["labels.1", "empty"]), (sub("[business, health]", "[]"), ["labels", "needs"]),
    (sub("[en, gsw]", "[{en: 1}]"), ["languages.0"]), (sub("[en, gsw]", "[]"), ["languages", "empty"]),
    (sub("[en, gsw]", "[en, en]"), ["languages", "'en'", "twice"]), (sub("[en, gsw]", "[en, zz]"), ["'zz'"]),
    (sub("{text_a: headline, label: topic}", "[a]"), ["columns"]), (sub("headline", "null"), ["columns.text_a"]),
    (sub("train: [train]", "train: train"), ["splits.train"]), (sub("{train: [train], test: [test]}", "{}"), ["splits"]),
    (sub("train: [train]", "train: []"), ["splits"]), (sub("optimisation:\n", "optimisation: 3\nnotes:\n"), ["optimisation"]),
    (sub("topic of a news item", "2020-13-45"), ["month"]), (GOOD + "hub: here\n", ["hub", "'here'"]),
    # numbers
    (GOOD + "version: -3\n", ["version", "-3"]), (GOOD + "version: true\n", ["version", "True"]),
    (GOOD + "max_seq_length: -8\n", ["max_seq_length", "-8"]), (GOOD + "max_seq_length: 7.5\n", ["max_seq_length", "7.5"]),
    (sub("2.0e-5", "-1.0"), ["optimisation.full.learning_rate", "-1.0"]), (sub("2.0e-5", ".inf"), ["learning_rate", "inf"]),
    (sub("2.0e-5", ".nan"), ["learning_rate", "nan"]), (sub("2.0e-5", "true"), ["learning_rate", "True"]),
    (sub("2.0e-5", "fast"), ["learning_rate", "'fast'"]), (sub("epochs: 3", "epochs: 0"), ["num_train_epochs", "0"]),
    (sub("epochs: 3", "epochs: -1"), ["num_train_epochs", "-1"]), (sub("epochs: 3", "epochs: yes"), ["num_train_epochs", "True"]),
    # texts
    (sub("topic of a", '"\\ud800"\nx:'), ["line 4", "surrogate"]), (sub("health]", '"\\udc00"]'), ["line 10", "surrogate"]),
    (sub('"topics/', '"a\\0/'), ["mirror", "NUL"]), (sub("{lang}", "{language}"), ["mirror", "'{language}'", "{lang}"]),
    (sub("{lang}", "{"), ["mirror"]), (sub("{lang}", "}"), ["mirror"]), (sub("{lang}", "{}"), ["mirror", "'{}'"]),
    (sub("{lang}", "{lang.__class__}"), ["mirror", "__class__"]), (sub("{lang}", "{lang:>99999999999}"), ["mirror"]),
    (GOOD + MORE, ["more.0.hub.config", "'{foo}'"]),
    # bombs
    (bomb(), ["line 2", "aliases"]), (bomb(4) + GOOD.replace("topic of a news item", "*e"), ["aliases"]),
    ("a: &a {x: 1}\n" + "b: {<<: [" + "*a, " * 999 + "*a]}\n", ["aliases"]), ("&a {name: *a}", ["aliases"]),
    ("[" * (LARGEST - 1), ["line 1", "nested too deeply"]), ("{a: " * 20_000, ["nested too deeply"]),
    ("- " * 20_000, ["nested too deeply"]), (GOOD + "max_seq_length: " + "9" * 6000, ["line 15", "too long"]),
    (GOOD + "max_seq_length: 0x" + "f" * 6000, ["line 15", "too long"]), (GOOD + "version: 1" + ":1" * 40_000, ["line 15", "too long"]),
    (GOOD + "version: 1" + ":1" * 400 + ".5", ["line 15", "too long"]), (GOOD + "notes: ['" + "x" * 5_000_000 + "']", [str(LARGEST)]),
    (GOOD + "notes: " + "x" * 90_000, ["notes", "xxx"]), (GOOD + f"notes: [{'[x], ' * 15_000}]", ["notes.0"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "named"), BAD, ids=range(len(BAD)))
def test_a_bad_task_file_is_answered_at_once(tmp_path: Path, content: str | bytes, named: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    message = refused(lambda: read_task_file(file), str(file), *named)
    assert time.process_time() - started < 5
    assert "\n" not in message


def test_a_folder_and_a_name_too_long_are_no_task_files(tmp_path: Path) -> None:
    for name in (str(tmp_path), "x" * 300, "a\0b"):
        refused(lambda name=name: read_task_file(name), "no such file")


def test_the_command_answers_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(sub("health]", '"\\udc00"]') + bomb(), encoding="utf-8")
    done = xadapt("tasks", "check", tmp_path / "mine.yaml", "--data", tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("error: ")

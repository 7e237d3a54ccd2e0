"""Every key of a task file is described once, beside its field, and printed and documented from there.

The tables of docs/tasks.md are made again by `python tests/test_task_schema.py`.
"""

import json
import re
from pathlib import Path

import pytest
import yaml
from test_user_tasks import changed, run

from xadapt.metrics import METRICS
from xadapt.tasks.schema import task_keys
from xadapt.tasks.spec import HubSource, Optimisation, OwnLanguage, Part, Task, Translation
from xadapt.tasks.user import read_task_file

DOCS = Path(__file__).parents[1] / "docs" / "tasks.md"
TABLES = re.compile(r"(?<=\|---\|\n)(?:\|.*\n)*")
NESTED = {
    "": Task, "hub.": HubSource, "own_languages[].": OwnLanguage, "more[].": Part, "translated.": Translation,
    "optimisation.<regime>.": Optimisation,
}  # fmt: skip


def tables() -> list[str]:
    """The bodies of the tables of docs/tasks.md, in order."""
    keys = [[f"`{key.key}`", key.value, key.default, key.meaning] for key in task_keys()]
    metrics = [[form, f"`{name}`", metric.meaning] for (form, name), metric in METRICS.items()]
    return [
        "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)
        for rows in (keys, metrics)
    ]


def test_every_key_is_there_once_with_a_meaning() -> None:
    keys = task_keys()
    expected = {f"{within}{name}" for within, model in NESTED.items() for name in model.model_fields} - {"own"}
    assert {key.key for key in keys} == expected
    assert len(keys) == len(expected)
    assert all(key.meaning and key.value and key.default for key in keys)


def test_the_documentation_and_the_command_say_what_the_spec_says() -> None:
    assert TABLES.findall(DOCS.read_text("utf-8")) == tables()
    assert json.loads(run("tasks", "schema", "--json")) == [key.record for key in task_keys()]
    printed = run("tasks", "schema")
    assert [key.key for key in task_keys() if key.key not in printed] == []


def test_what_the_table_says_of_a_key_is_so(tmp_path: Path) -> None:
    """A file of the required keys alone is a task; without any one of them it is none; defaults are those shown."""
    required = [key.key for key in task_keys() if key.default == "required" and "." not in key.key]
    whole = yaml.safe_load(changed(tmp_path).read_text())
    file = tmp_path / "least.yaml"
    least = {key: whole[key] for key in required} | {"languages": ["en", "sw"], "labels": whole["labels"]}
    file.write_text(yaml.safe_dump(least))
    task = read_task_file(file)
    shown = {key.key: key.default for key in task_keys()}
    assert (str(task.max_seq_length), str(task.version)) == (shown["max_seq_length"], shown["version"])
    for key in required:
        file.write_text(yaml.safe_dump({name: value for name, value in least.items() if name != key}))
        with pytest.raises(ValueError, match=key):
            read_task_file(file)


if __name__ == "__main__":
    made = iter(tables())
    DOCS.write_text(TABLES.sub(lambda _: next(made), DOCS.read_text("utf-8")), "utf-8")

"""The README's commands: every one parses, and those in blocks marked `<!-- runs -->` run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from xadapt_cli.app import app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
USAGE_ERROR = typer.BadParameter.__mro__[1]  # typer keeps its own copy of click, newer versions under another name
BLOCK = re.compile(r"(?P<mark><!--\s*runs\s*-->\s*\n)?^```console\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """The commands of one fenced console block, and whether it is marked to run."""

    runs: bool
    commands: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """The console blocks of a Markdown text: lines that start with `$ `, joined where they end in a backslash."""
    found = []
    for match in BLOCK.finditer(text):
        lines = match["body"].replace("\\\n", " ").splitlines()
        commands = tuple(line.removeprefix("$ ").strip() for line in lines if line.startswith(("$ xadapt ", "$ make ")))
        found.append(Block(bool(match["mark"]), commands))
    return found


def check(command: str) -> None:
    """Raise unless the command's options and arguments are ones that xadapt, or make, has."""
    program, *arguments = shlex.split(command, comments=True)
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        unknown = {word for word in arguments if "=" not in word} - targets
        if unknown:
            raise USAGE_ERROR(f"make has no {unknown}")
        return
    group, context = typer.main.get_command(app), None
    while hasattr(group, "resolve_command"):
        context = group.make_context(program, list(arguments), parent=context)
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        program, group, arguments = group.resolve_command(context, rest)
    group.make_context(program, list(arguments), parent=context)


BLOCKS = blocks(README.read_text(encoding="utf-8"))


def test_the_readme_shows_commands_and_some_run() -> None:
    commands = [command for block in BLOCKS for command in block.commands]
    assert any(command.startswith("make ") for command in commands)
    assert any(command.startswith("xadapt ") for block in BLOCKS if block.runs for command in block.commands)


@pytest.mark.parametrize("command", sorted({command for block in BLOCKS for command in block.commands}))
def test_a_command_parses(command: str) -> None:
    check(command)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.runs], ids=lambda block: block.commands[0][:40])
def test_a_marked_block_runs(block: Block, tmp_path: Path) -> None:
    """One command after another in an empty folder, in which the store lies too; on the embedded encoder and suite."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("XADAPT_")}
    env |= {"XADAPT_BACKBONE": "embedded", "XADAPT_DATA": "embedded", "HF_HUB_OFFLINE": "1"}
    program = shutil.which("xadapt", path=str(Path(sys.executable).parent))
    assert program, "xadapt is not installed beside this Python"
    for command in block.commands:
        name, *arguments = shlex.split(command, comments=True)
        assert name == "xadapt", "a block that runs holds xadapt's commands only"
        done = subprocess.run([program, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"


TEXT = """
<!-- runs -->
```console
$ xadapt tasks
task  role
$ xadapt run demo.yaml \\
    --set seed=1
```

<!-- runs -->
Some words between.

```console
$ make demo  # five minutes
$ ls
```

```sh
$ xadapt nothing
```
"""


def test_blocks_are_found() -> None:
    first, second = blocks(TEXT)
    assert (first.runs, second.runs) == (True, False)
    assert [shlex.split(command) for command in first.commands] == [
        ["xadapt", "tasks"],
        ["xadapt", "run", "demo.yaml", "--set", "seed=1"],
    ]
    assert second.commands == ("make demo  # five minutes",)
    assert blocks("no blocks") == []


@pytest.mark.parametrize(
    "command",
    ["make demo  # words", "make PYTHON=python3.12 test", "xadapt tasks show mnli --json", "xadapt compare a b --json"],
)
def test_a_good_command_passes(command: str) -> None:
    check(command)


@pytest.mark.parametrize(
    "command",
    [
        "make cofee", "xadapt tusks", "xadapt train-target --task udpos --lr 1", "xadapt run", "xadapt tasks show",
        "xadapt train-intermediate --task mnli --learning-rate fast", "xadapt plan a.yaml b.yaml",
    ],
)  # fmt: skip
def test_a_bad_command_is_found(command: str) -> None:
    with pytest.raises(USAGE_ERROR):
        check(command)

"""The command line as users meet it: what commands print and share, what is frozen, what is refused and how.

The frozen option names are regenerated, after a deliberate change, by `python tests/test_cli.py`.
"""

import io
import json
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from xadapt.tasks import TASKS, get_task
from xadapt_cli.app import app, main

GOLDEN = Path(__file__).parent / "golden" / "options.json"
HEAVY = ("torch", "transformers", "accelerate", "adapters", "peft")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, str]:
        """The closing `name: value` lines."""
        lines = [line.partition(": ") for line in self.out.splitlines() if not line.startswith(" ")]
        return {name: value for name, colon, value in lines if colon and name in ("artefact", "next", "another seed")}


def xadapt(*arguments: object) -> Done:
    """Run the command in this process, its error handling included."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["xadapt", *map(str, arguments)])
        for name in ("XADAPT_BACKBONE", "XADAPT_DATA", "XADAPT_STORE"):
            patch.delenv(name, raising=False)
        with pytest.raises(SystemExit) as left:
            main()
    return Done(int(left.value.code or 0), out.getvalue(), err.getvalue())


def ok(*arguments: object) -> Done:
    done = xadapt(*arguments)
    assert done.code == 0, done.err
    return done


def follow(done: Done, line: str = "next") -> Done:
    """Run the command that another one printed, as printed."""
    program, *arguments = shlex.split(done.last[line])
    assert program == "xadapt"
    return ok(*arguments)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "a store"  # with a space: what is printed must be quoted


@pytest.fixture
def where(tiny_backbone: Path, mirror: Path, store: Path) -> list[object]:
    return ["--backbone", tiny_backbone, "--data", mirror, "--store", store]


SHORT = ["--max-steps", "2", "--per-device-train-batch-size", "8", "--dtype", "float32"]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- commands, one after another


def test_one_command_leads_to_the_next(where: list[object], store: Path) -> None:
    first = ok("train-intermediate", "--task", "mnli", *where, *SHORT)
    assert (Path(first.last["artefact"]) / "adapter_config.json").is_file()
    assert "1 succeeded" in first.err

    target = follow(first)
    assert "1 succeeded, 1 cached" in target.err, "the intermediate training is shared"
    assert (Path(target.last["artefact"]) / "below" / "adapter_config.json").is_file()

    evaluated = follow(target)
    assert "1 succeeded, 2 cached" in evaluated.err
    assert json.loads((Path(evaluated.last["artefact"]) / "scores.json").read_text())[0]["language"] == "de"
    assert "adapter · stack · mnli" in evaluated.out

    compared = follow(evaluated)
    assert "adapter · stack · mnli" in compared.out

    before = snapshot(store)
    again = ok("train-intermediate", "--task", "mnli", *where, *SHORT)
    for done in (again, follow(again), follow(follow(again))):
        assert "succeeded" not in done.err
        assert "cached" in done.err
    assert again.last == first.last
    assert {name for name, content in snapshot(store).items() if before.get(name) != content} == set(), "work was done"


def test_full_fine_tuning_leads_on_to_continue(where: list[object]) -> None:
    first = ok("train-intermediate", "--task", "mnli", "--regime", "full", *where, *SHORT)
    assert "--composition continue" in first.last["next"]
    assert "1 succeeded, 1 cached" in follow(first).err


def test_the_natural_composition_follows_from_the_regime(where: list[object]) -> None:
    shared = [*where, *SHORT, "--max-train-samples", "8"]
    stacked = ok("train-target", "--task", "udpos", "--intermediate", "mnli", *shared)
    assert "--composition stack" in stacked.last["next"]
    assert "train udpos, adapter, stack mnli" in stacked.err
    assert "train udpos, adapter\n" not in stacked.err


def test_retrieval_is_evaluated_without_training(where: list[object], store: Path) -> None:
    arguments = ["--languages", "sw", "--dtype", "float32", "--report-to", "tensorboard"]
    done = ok("evaluate", "--task", "tatoeba", *arguments, *where)
    assert "1 succeeded" in done.err
    assert list((store / "tracking" / "tensorboard").glob("*/evaluate-tatoeba-*/events*"))
    assert "evaluate tatoeba on 1 languages" in done.err


RECIPE = """
name: small
intermediate: [mnli]
targets: [xnli, udpos, tatoeba]
regimes:
  full: {compositions: [none, continue]}
  adapter: {compositions: [none, stack], reduction_factor: 8}
training: {max_steps: 2, per_device_train_batch_size: 8, dtype: float32}
max_eval_samples: 6
"""
SCORE_KEYS = {
    "task", "language", "family", "regime", "composition", "intermediate", "seed", "metric", "value", "n",
}  # fmt: skip


def test_a_recipe_is_planned_run_and_compared(where: list[object], store: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "small study.yaml"
    recipe.write_text(RECIPE)
    planned = json.loads(ok("plan", recipe, "--json", *where).out)
    assert {stage["status"] for stage in planned["stages"]} == {"to run"}
    assert not store.exists(), "a plan writes nothing"
    assert f"{len(planned['stages'])} stages" in ok("plan", recipe, *where).out

    done = ok("run", recipe, *where)
    assert f"{len(planned['stages'])} succeeded\n" in done.err
    assert {"scores.csv", "scores.parquet", "report.html"} <= {p.name for p in (store / "reports" / "small").iterdir()}
    _check_stages(planned["stages"])
    _check_scores(json.loads(ok("compare", "--json", "--store", store).out))
    assert ok("compare", "small", "--store", store).out == ok("compare", "--store", store).out

    again = ok("run", recipe, *where)
    assert f"{len(planned['stages'])} cached\n" in again.err
    assert again.out == done.out
    assert {s["status"] for s in json.loads(ok("plan", recipe, "--json", *where).out)["stages"]} == {"cached"}

    assert "setting" in follow(done).out
    other = follow(done, "another seed")
    assert "succeeded" in other.err
    assert {score["seed"] for score in json.loads(ok("compare", "--json", "--store", store).out)} == {0, 1}

    missed = xadapt("compare", "smal", "--store", store)
    _check_error(missed, ["'smal'", str(store), "Did you mean 'small'"])


def _check_stages(stages: list[dict[str, Any]]) -> None:
    expected = {"seconds", "estimated_seconds", "estimated_like"}
    expected |= {"key", "kind", "label", "examples", "status", "needs", "uses"}
    assert all(set(stage) == expected for stage in stages)
    keys = [stage["key"] for stage in stages]
    assert len(set(keys)) == len(keys)
    assert all(keys.index(need) < at for at, stage in enumerate(stages) for need in stage["needs"])
    assert all(isinstance(stage["examples"], int) for stage in stages)


def _check_scores(scores: list[dict[str, Any]]) -> None:
    assert all(set(score) >= SCORE_KEYS for score in scores)
    assert all(0 <= score["value"] <= 100 and score["n"] > 0 for score in scores)
    languages = {task: {s["language"] for s in scores if s["task"] == task} for task in ("xnli", "udpos", "tatoeba")}
    assert languages == {"xnli": {"en", "de", "sw"}, "udpos": {"en", "de"}, "tatoeba": {"de", "sw"}}
    cells = {(score["regime"], score["composition"], score["intermediate"]) for score in scores}
    expected = {("none", ""), ("continue", "mnli")}, {("none", ""), ("stack", "mnli")}
    assert cells == {(r, *c) for r, pairs in zip(("full", "adapter"), expected, strict=True) for c in pairs}
    assert {score["metric"] for score in scores if score["task"] == "udpos"} == {"f1", "accuracy"}


def test_a_recipe_and_the_options_share_their_work(where: list[object], tmp_path: Path) -> None:
    ok("train-intermediate", "--task", "mnli", *where, *SHORT)
    recipe = tmp_path / "same.yaml"
    recipe.write_text("intermediate: [mnli]\ntargets: [udpos]\nregimes: {adapter: {compositions: [stack]}}\n")
    numbers = ["max_steps=2", "per_device_train_batch_size=8", "dtype=float32"]
    sets = [word for number in numbers for word in ("--set", f"training.{number}")]
    stages = json.loads(ok("plan", recipe, "--json", *where, *sets).out)["stages"]
    assert [stage["status"] for stage in stages] == ["cached", "to run", "to run"]


def test_a_bad_row_fails_its_stage_alone(where: list[object], mirror: Path, store: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from conftest import write_split

    path = mirror / "udpos" / "udpos.English" / "train.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[3]["pos_tags"][0] = "\x1b[31mVERB\nred"
    write_split(path, rows)
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    done = xadapt("run", recipe, *where, "--set", "targets=[udpos, tatoeba]", "--set", "regimes.full=null")
    assert done.code == 2
    assert [part for part in (str(path), "row 3", "'pos_tags'", "\\x1b[31mVERB\\nred") if part not in done.err] == []
    assert "\x1b" not in done.err + done.out
    assert "Traceback" not in done.err + done.out
    assert "4 succeeded" not in done.err
    assert "2 failed, 2 not run" in done.err
    assert not list(store.rglob("*.partial")), "a user's error leaves no half-done work"


# ---- what there is


def test_tasks_and_languages_as_json_and_as_text() -> None:
    tasks = json.loads(ok("tasks", "--json").out)
    assert [task["name"] for task in tasks] == list(TASKS)
    assert all(task["hub"]["licence"] and "revision" in task["hub"] for task in tasks)
    assert json.loads(ok("tasks", "show", "udpos", "--json").out) == next(t for t in tasks if t["name"] == "udpos")
    languages = json.loads(ok("languages", "--json").out)
    assert len(languages) == 40
    assert {"code", "name", "family", "branch", "iso3", "script", "seen_in_pretraining", "tasks"} == set(languages[0])
    for words, given in (
        ([task["name"] for task in tasks], ["tasks"]),
        (get_task("udpos").labels, ["tasks", "show", "udpos"]),
        ([language["name"] for language in languages], ["languages"]),
    ):
        shown = ok(*given).out
        assert [word for word in words if word not in shown] == []


def test_version() -> None:
    from xadapt import __version__

    assert ok("--version").out.split() == ["xadapt", __version__]


def public_options() -> dict[str, list[str]]:
    """Every command with the names of its options, and of its arguments in angle brackets."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, list[str]]]:
        names = [
            f"<{p.name}>" if p.param_type_name == "argument" else "/".join([*p.opts, *p.secondary_opts])
            for p in command.params
        ]
        yield name, sorted(names)
        for inner, below in sorted(getattr(command, "commands", {}).items()):
            yield from walk(f"{name} {inner}", below)

    return dict(walk("xadapt", typer.main.get_command(app)))


def test_the_public_options_are_those_that_are_frozen() -> None:
    assert public_options() == json.loads(GOLDEN.read_text(encoding="utf-8"))


# ---- quick answers


LOADED = """
import sys
sys.argv = ["xadapt", *sys.argv[1:]]
from xadapt_cli.app import main
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
print("loaded:", *(name for name in {heavy!r} if name in sys.modules))
"""


@pytest.mark.parametrize("command", ["--help", "tasks", "languages", "run --help", "plan"])
def test_no_torch_is_loaded_to_answer(command: str, where: list[object], tmp_path: Path) -> None:
    arguments: list[object] = [*command.split()]
    if command == "plan":
        (tmp_path / "small.yaml").write_text(RECIPE)
        arguments += [tmp_path / "small.yaml", *where]
    script = LOADED.format(heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_help_is_there_at_once() -> None:
    def seconds() -> float:
        """Processor time of one run, which other work on the machine does not lengthen."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([Path(sys.executable).with_name("xadapt"), "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert 0 < min(seconds() for _ in range(5)) < 0.5


# ---- what is refused: before anything is written, with the value, the place and the remedy


def _check_error(done: Done, named: list[str]) -> None:
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, "more than one line"
    assert "Traceback" not in done.err
    assert all(char.isprintable() for char in done.err[:-1])
    assert [part for part in named if part not in done.err] == [], done.err


TARGET = "train-target --task udpos"
INTERMEDIATE = "train-intermediate --task mnli"


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("train-intermediate --task mnly", ["'mnly'", "--task", "Did you mean 'mnli'"]),
        ("train-intermediate --task xnli", ["'xnli'", "--task", "Valid: mnli"]),
        ("train-target --task udpso", ["'udpso'", "--task", "Did you mean 'udpos'"]),
        ("train-target --task mnli", ["'mnli'", "--task", "Did you mean 'xnli'"]),
        ("train-target --task tatoeba", ["'tatoeba'", "no training", "xadapt evaluate --task tatoeba"]),
        ("tasks show udpso", ["'udpso'", "TASK", "Did you mean 'udpos'"]),
        ("evaluate --task \x1b[31mx\n", ["\\x1b[31mx\\n", "--task", "Valid: xnli"]),
        (f"{TARGET} --intermediate mnl", ["'mnl'", "--intermediate", "Did you mean 'mnli'"]),
        (f"{TARGET} --intermediate udpos", ["'udpos'", "--intermediate", "Valid: mnli"]),
        (f"{TARGET} --intermediate ../mnli", ["'../mnli'", "--intermediate", "Did you mean 'mnli'"]),
        ("evaluate --task xnli --languages enn", ["'enn'", "languages", "Did you mean 'en'"]),
        ("evaluate --task xnli --languages en,German", ["'German'", "languages", "'de'"]),
        ("evaluate --task xnli --languages de,,en", ["''", "languages", "Valid: "]),
        ("evaluate --task xnli --languages ta", ["'xnli'", "ta", "de, en, sw"]),
        (f"{TARGET} --regime adaptor", ["'adaptor'", "--regime", "Did you mean 'adapter'"]),
        (f"{INTERMEDIATE} --regime loar", ["'loar'", "--regime", "Did you mean 'lora'"]),
        (f"{TARGET} --composition stak --intermediate mnli", ["'stak'", "--composition", "Did you mean 'stack'"]),
        (f"{TARGET} --regime full --composition stack --intermediate mnli", ["'full'", "'stack'", "continue"]),
        (f"{TARGET} --composition stack", ["stack", "--composition", "--intermediate mnli"]),
        (f"{TARGET} --composition none --intermediate mnli", ["none", "--composition", "leave --intermediate out"]),
        (f"{TARGET} --regime full --reduction-factor 8", ["--reduction-factor 8", "--regime adapter", "full"]),
        (f"{TARGET} --regime full --adapter-config seq_bn", ["--adapter-config seq_bn", "--regime adapter"]),
        (f"{INTERMEDIATE} --regime full --non-linearity relu", ["--non-linearity relu", "--regime adapter"]),
        (f"{TARGET} --adapter-config par_bn", ["'par_bn'", "--adapter-config", "Did you mean 'seq_bn'"]),
        (f"{TARGET} --non-linearity rely", ["'rely'", "--non-linearity", "Did you mean 'relu'"]),
        (f"{TARGET} --reduction-factor 0", ["--reduction-factor 0", "greater than 0", "1024"]),
        (f"{TARGET} --learning-rate -1", ["--learning-rate -1", "greater than 0", " 10"]),
        (f"{TARGET} --learning-rate nan", ["--learning-rate nan", "number"]),
        (f"{TARGET} --num-train-epochs 0", ["--num-train-epochs 0", "greater than 0"]),
        (f"{TARGET} --max-steps -3", ["--max-steps -3", "greater than 0"]),
        (f"{TARGET} --warmup-ratio 2", ["--warmup-ratio 2", "at least 0", "at most 1"]),
        (f"{TARGET} --max-seq-length 4", ["--max-seq-length 4", "at least 8", "at most 512"]),
        (f"{TARGET} --max-train-samples 0", ["--max-train-samples 0", "greater than 0"]),
        ("evaluate --task xnli --max-predict-samples -5", ["--max-predict-samples -5", "greater than 0"]),
        ("evaluate --task tatoeba --retrieval-layer -1", ["--retrieval-layer -1", "at least 0"]),
        (f"{TARGET} --seed -1", ["--seed -1", "at least 0"]),
        (f"{TARGET} --dtype foo", ["'foo'", "--dtype", "auto, float32, bfloat16"]),
        (f"{TARGET} --dtype float", ["'float'", "--dtype", "Did you mean 'float32'"]),
        (f"{TARGET} --composition fusion --intermediate mnli,squad --train-on tarket", ["'tarket'", "--train-on", "Did you mean 'target'"]),
        (f"{INTERMEDIATE} --regime lora --target-modules querry,key", ["'querry'", "--target-modules", "Did you mean 'query'"]),
        (f"{INTERMEDIATE} --mlm-ratio 1", ["--mlm-ratio 1", "at least 0", "less than 1"]),
        (f"{INTERMEDIATE} --robust adverserial", ["'adverserial'", "--robust", "Did you mean 'adversarial'"]),
        (f"{TARGET.replace('udpos', 'xnli')} --robust random --robust-epsilon 11", ["--robust-epsilon 11", "at most 10"]),
        (f"{TARGET} --report-to tensorbord", ["'tensorbord'", "--report-to", "Did you mean 'tensorboard'"]),
        (f"{TARGET} --data {{tmp}}/nowhere", ["{tmp}/nowhere", "--data", "embedded"]),
        (f"{TARGET} --backbone {{tmp}}/nowhere", ["{tmp}/nowhere", "--backbone", "config.json"]),
        (f"{TARGET} --backbone {{tmp}}/pickled", ["{tmp}/pickled", "--backbone", "model.safetensors"]),
        (f"{TARGET} --backbone {{tmp}}/bert", ["{tmp}/bert", "'bert'", "'xlm-roberta'"]),
        (f"{TARGET} --backbone {{tmp}}/broken", ["{tmp}/broken/config.json", "JSON"]),
        (f"{TARGET} --backbone {{tmp}}/wordless", ["{tmp}/wordless", "--backbone", "tokenizer.json"]),
        ("compare", ["{tmp}/store", "xadapt run"]),
        ("compare nothing", ["'nothing'", "{tmp}/store"]),
        ("compare ../nothing", ["'../nothing'", "{tmp}/store"]),
    ],
)  # fmt: skip
def test_a_bad_option_is_refused(
    command: str, named: list[str], tiny_backbone: Path, mirror: Path, tmp_path: Path
) -> None:
    _write_bad_backbones(tmp_path, tiny_backbone)
    arguments = command.format(tmp=tmp_path).split(" ")
    if arguments[0] != "tasks":
        arguments += ["--store", str(tmp_path / "store")]
    if arguments[0] not in ("tasks", "compare"):
        for option, value in (("--data", mirror), ("--backbone", tiny_backbone)):
            arguments += [] if option in arguments else [option, str(value)]
    before = snapshot(tmp_path)
    _check_error(xadapt(*arguments), [part.format(tmp=tmp_path) for part in named])
    assert not (tmp_path / "store").exists()
    assert snapshot(tmp_path) == before


def _write_bad_backbones(folder: Path, tiny: Path) -> None:
    config = (tiny / "config.json").read_text()
    for name, text in (
        ("pickled", config), ("bert", '{"model_type": "bert"}'), ("broken", config[:40]), ("wordless", config),
    ):  # fmt: skip
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "wordless" / "model.safetensors").write_bytes(b"")


GOOD = "targets: [udpos]\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("targets: [udpos\n", ["YAML", "{file}"]),
        ("- udpos\n", ["{file}", "mapping"]),
        ("", ["{file}", "mapping"]),
        ("seed: 2020-99-99\n", ["{file}", "YAML"]),
        ("targets: " + "[" * 800, ["{file}", "YAML"]),
        ("a: &a [x, x]\nb: &b [*a, *a]\ntargets: [*b, *b]\n", ["{file}", "aliases"]),
        ("name: only\n", ["targets", "intermediate"]),
        (GOOD + "trainig: {}\n", ["{file}", "'trainig'", "Did you mean 'training'"]),
        (GOOD + "training: {learning_rat: 1}\n", ["{file}", "'learning_rat'", "Did you mean 'learning_rate'"]),
        (GOOD + "regimes: {adaptor: {}}\n", ["{file}", "adaptor", "regimes", "Did you mean 'adapter'"]),
        (GOOD + "regimes: {adapter: {reduction_facto: 1}}\n", ["{file}", "Did you mean 'reduction_factor'"]),
        (GOOD + "regimes: {full: {config: seq_bn}}\n", ["{file}", "config", "regimes.full", "Valid: compositions"]),
        (GOOD + "regimes: {full: {training: {lr: 1}}}\n", ["{file}", "'lr'", "regimes.full.training"]),
        (GOOD + "tasks: {udpso: {}}\n", ["{file}", "'udpso'", "tasks", "Did you mean 'udpos'"]),
        (GOOD + "tasks: {udpos: {max_step: 1}}\n", ["{file}", "tasks.udpos", "Did you mean 'max_steps'"]),
        (GOOD + "1: 2\n", ["{file}", "1"]),
        (GOOD + "seed: many\n", ["{file}", "seed", "'many'", "number"]),
        ("targets: 5\n", ["{file}", "targets", "5"]),
        ("targets: udpos\n", ["{file}", "targets", "'udpos'"]),
        (GOOD + "regimes: [adapter]\n", ["{file}", "regimes", "['adapter']"]),
        (GOOD + "regimes: {}\n", ["{file}", "regimes", "full, adapter"]),
        (GOOD + "regimes: {full: {compositions: []}}\n", ["{file}", "regimes.full.compositions", "none, continue"]),
        (GOOD + "regimes: {full: {compositions: none}}\n", ["{file}", "regimes.full.compositions", "'none'"]),
        (GOOD + "regimes: {full: {compositions: [stack]}}\n", ["{file}", "'stack'", "regimes.full", "continue"]),
        (GOOD + "regimes: {adapter: {compositions: [stack]}}\n", ["{file}", "stack", "`intermediate`"]),
        (GOOD + "training: 3\n", ["{file}", "training", "3"]),
        (GOOD + "training: {learning_rate: fast}\n", ["{file}", "training.learning_rate", "'fast'"]),
        (GOOD + "training: {learning_rate: -1}\n", ["{file}", "training.learning_rate", "-1", "greater than 0"]),
        (GOOD + "max_train_samples: -1\n", ["{file}", "max_train_samples", "-1"]),
        (GOOD + "languages: [English]\n", ["{file}", "'English'", "languages", "'en'"]),
        (GOOD + "languages: []\n", ["languages", "udpos"]),
        (GOOD + "name: ../x\n", ["{file}", "name", "'../x'"]),
        (GOOD + 'name: "a\\nb"\n', ["{file}", "name", "'a\\nb'"]),
        (GOOD + 'name: "\\e[31mred"\n', ["{file}", "name", "\\x1b[31mred"]),
        (GOOD + f"name: {'x' * 300}\n", ["{file}", "name"]),
        (GOOD + "extends: nowhere.yaml\n", ["nowhere.yaml", "demo.yaml"]),
        (GOOD + "extends: recipe.yaml\n", ["{file}", "extends", "circle"]),
        (GOOD + "extends: other.yaml\n", ["{file}", "extends", "circle", "other.yaml"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_bad_recipe_is_refused(
    command: str, text: str, named: list[str], where: list[object], store: Path, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    (tmp_path / "other.yaml").write_text("extends: recipe.yaml\n")
    _check_error(xadapt(command, file, *where), [part.format(file=file) for part in named])
    assert not store.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{tmp}/recip.yaml"], ["{tmp}/recip.yaml", "demo.yaml"]),
        (["dem.yaml"], ["'dem.yaml'", "Did you mean 'demo.yaml'"]),
        (["{tmp}"], ["{tmp}", "demo.yaml"]),
        (["{tmp}/latin.yaml"], ["{tmp}/latin.yaml", "utf-8"]),
        (["{tmp}/good.yaml", "--set", "seed"], ["'seed'", "--set", "a.b=value"]),
        (["{tmp}/good.yaml", "--set", "=1"], ["'=1'", "--set", "a.b=value"]),
        (["{tmp}/good.yaml", "--set", "seed=["], ["'seed=['", "--set"]),
        (["{tmp}/good.yaml", "--set", "seed=*a"], ["'seed=*a'", "--set"]),
        (["{tmp}/good.yaml", "--set", "sead=1"], ["'sead'", "Did you mean 'seed'"]),
        (["{tmp}/good.yaml", "--set", "seed.x=1"], ["seed", "'x'"]),
        (["{tmp}/good.yaml", "--set", "name.x=1"], ["'name.x=1'", "--set", "'name'"]),
        (["{tmp}/good.yaml", "--set", "training.learning_rate=-1"], ["training.learning_rate", "-1"]),
        (["{tmp}/good.yaml", "--set", "name=../x"], ["name", "'../x'"]),
        (["{tmp}/good.yaml", "--data", "{tmp}/nowhere"], ["{tmp}/nowhere", "--data"]),
    ],
)  # fmt: skip
def test_a_bad_recipe_argument_is_refused(
    arguments: list[str], named: list[str], where: list[object], store: Path, tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_text(GOOD + "name: good\n")
    (tmp_path / "latin.yaml").write_bytes("description: café\n".encode("latin-1"))
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    shared = where[:2] + where[4:] if "--data" in given else where
    _check_error(xadapt("run", *given, *shared), [part.format(tmp=tmp_path) for part in named])
    assert not store.exists()


def test_a_refused_command_leaves_a_store_as_it_was(where: list[object], store: Path) -> None:
    ok("evaluate", "--task", "tatoeba", "--languages", "sw", "--dtype", "float32", *where)
    before = snapshot(store)
    for bad in (["--languages", "xx"], ["--dtype", "foo"], ["--retrieval-layer", "-1"], ["--seed", "-1"]):
        assert xadapt("evaluate", "--task", "tatoeba", *where, *bad).code == 2
    assert snapshot(store) == before


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(public_options(), indent=1) + "\n", encoding="utf-8")

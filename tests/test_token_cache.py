"""The token cache: the same features as without it, a miss for whatever changes them, and nothing a crash could spoil."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.numpy import load_file, save_file
from silent_reporter import Silent
from test_store_faults import at_call, die, disk_full
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.data.ragged import Ragged
from xadapt.data.rows import joined_splits
from xadapt.data.sources import EmbeddedSource
from xadapt.evaluation.zero_shot import Predicted, evaluate_languages
from xadapt.formats import FORMATS, Features, Format, cache, span
from xadapt.formats.cache import cache_key, encoded
from xadapt.formats.features import collate
from xadapt.models.backbone import Backbone
from xadapt.study.executors import run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt.tasks import TASKS, Task, get_task

BY_FORMAT = {task.format: task for task in reversed(TASKS.values())}
PAD, LENGTH = 1, 48


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone: Path) -> PreTrainedTokenizerFast:
    return Backbone(str(tiny_backbone)).tokenizer


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are kept too, and are encoded in several goes."""
    monkeypatch.setattr(cache, "SMALLEST", 1)
    monkeypatch.setattr(cache, "CHUNK", 7)


def load(task: Task, limit: int = 30) -> Rows:
    """Rows of the suite, in German where the task has it; mining takes both splits."""
    source, lang = EmbeddedSource(), "de" if "de" in task.languages else "en"
    if task.format == "mining":
        dev, test = (source.load(task, lang, split, limit=None) for split in ("validation", "test"))
        return joined_splits(dev[:limit], test[:limit])
    return source.load(task, lang, "test" if "test" in task.splits else "validation", limit=limit)


def counted(form: Format, act: Callable[[], None]) -> Format:
    """The format, which does something before each call of `encode`."""

    class Counted(type(form)):  # type: ignore[misc]
        def encode(self, *args: Any) -> Features:
            act()
            return super().encode(*args)

    return Counted()


def get(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, folder: Path | None, act: Callable[[], None] = lambda: None
) -> Features:
    """Through the cache; `act` is called whenever rows are encoded."""
    task = get_task(rows.task)
    return encoded(counted(FORMATS[task.format], act), rows, task, tokenizer, max_length=LENGTH, folder=folder)


def fresh(rows: Rows, tokenizer: PreTrainedTokenizerFast) -> Features:
    task = get_task(rows.task)
    return FORMATS[task.format].encode(rows, task, tokenizer, LENGTH)


def plain(value: Any) -> Any:
    """Lists of lists, whatever holds them."""
    if isinstance(value, Sequence) and not isinstance(value, str | tuple):
        return [plain(each) for each in value]
    return value


def contents(features: Features) -> dict[str, Any]:
    return {each.name: plain(getattr(features, each.name)) for each in fields(features)}


def entry(folder: Path) -> Path:
    (found,) = folder.glob("*.safetensors")
    return found


@pytest.fixture
def pairs() -> Rows:
    return load(get_task("xnli"), 20)


# the same features


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_kept_is_what_the_format_encodes(
    format: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = load(BY_FORMAT[format])
    expected, calls = fresh(rows, tokenizer), []
    found = [get(rows, tokenizer, folder, lambda: calls.append(1)) for folder in (None, tmp_path, tmp_path, tmp_path)]
    assert len(calls) == 2 * (1 if format == "retrieval" else -(-len(rows) // 7)), "twice in all its parts, then never"
    for features in found:
        assert contents(features) == contents(expected)
        assert repr(contents(features)) == repr(contents(expected)), "and no numbers of another type"
        assert features.lengths == expected.lengths
        assert len(features) == len(expected)
    assert entry(tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_batches_are_those_of_plain_lists(format: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    rows = load(BY_FORMAT[format])
    compact, lists = get(rows, tokenizer, tmp_path), fresh(rows, tokenizer)
    rng = random.Random(0)
    for size in (1, 2, 9):
        at = rng.sample(range(len(lists)), size)
        ours, theirs = (collate(features, at, PAD, draw=(3, 1)) for features in (compact, lists))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor)
            assert ours[name].dtype == tensor.dtype == torch.long
        chosen = [list(lists.input_ids[i]) for a in at for i in range(a * lists.sequences, (a + 1) * lists.sequences)]
        if lists.masking is None:
            width = max(map(len, chosen))
            assert ours["input_ids"].tolist() == [[*ids, *[PAD] * (width - len(ids))] for ids in chosen]
            assert ours["attention_mask"].sum(dim=1).tolist() == [len(ids) for ids in chosen]


def test_few_rows_are_not_kept(
    pairs: Rows, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for smallest in (len(pairs) + 1, len(pairs)):
        monkeypatch.setattr(cache, "SMALLEST", smallest)
        assert contents(get(pairs, tokenizer, tmp_path / "tokens")) == contents(fresh(pairs, tokenizer))
        assert (tmp_path / "tokens").exists() == (smallest == len(pairs))


def test_evaluation_is_the_same_and_its_second_time_tokenises_nothing(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    for name in ("xnli", "udpos", "xquad", "tatoeba"):
        task = get_task(name)
        monkeypatch.setitem(FORMATS, task.format, counted(FORMATS[task.format], lambda: calls.append(1)))
        languages = [
            (lang, [EmbeddedSource().load(task, lang, "validation" if name == "tatoeba" else "test", limit=20)])
            for lang in ("de", "sw")
            if lang in task.languages
        ]

        def predict(features: Features, task: Task = task) -> list[Tensor]:
            """Numbers that follow from the tokens."""
            width = {"xquad": 2, "tatoeba": 8}.get(task.name, len(task.labels))
            found = []
            for ids in features.input_ids:
                rng = np.random.default_rng(ids)
                shape = (len(ids), width) if task.format in ("tagging", "span") else (width,)
                found.append(torch.tensor(rng.normal(size=shape)))
            return found

        made = []
        for folder in (None, tmp_path, tmp_path):
            calls.clear()
            kept: list[Predicted] = []
            results = evaluate_languages(
                task, languages, predict, tokenizer, max_length=LENGTH, block=15, token_cache=folder, keep=kept.append
            )
            made.append((list(results), kept))
        assert made[0] == made[1] == made[2]
        assert calls == []


def test_a_study_is_the_same_to_the_bit(
    mirror: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cache, with an empty one, and with one that has everything."""
    recipe = make_recipe({
        "backbone": str(tiny_backbone), "data": str(mirror), "targets": ["xnli", "udpos"], "languages": ["en", "de"],
        "regimes": {"full": {"compositions": ["none"]}}, "max_train_samples": 40,
        "training": {"max_steps": 3, "per_device_train_batch_size": 8, "dtype": "float32"},
    }, place="the test")  # fmt: skip
    plan, calls, made = make_plan(recipe), [], []
    for name in ("classification", "tagging"):
        monkeypatch.setitem(FORMATS, name, counted(FORMATS[name], lambda: calls.append(1)))
    (tmp_path / "file").write_text("no folder")
    for number, folder in enumerate(("file", "cache", "cache")):
        monkeypatch.setenv("XADAPT_CACHE", str(tmp_path / folder))
        calls.clear()
        store = Store(tmp_path / f"store-{number}")
        outcomes = run_plan(plan, store, Silent())
        assert [outcome.status for outcome in outcomes] == ["succeeded"] * 4
        found = [store.find(outcome.stage) for outcome in outcomes]
        kept = ("*.safetensors", "scores.json", "predictions.parquet")
        made.append([
            (path.name, path.read_bytes()) for each in found if each for ending in kept for path in each.folder.glob(ending)
        ])  # fmt: skip
        assert bool(calls) == (number < 2)
    assert {"model.safetensors", "head.safetensors", "predictions.parquet"} <= {name for name, _ in made[0]}
    assert made[0] == made[1] == made[2]
    assert list((tmp_path / "cache" / "tokens").glob("*.safetensors"))


# what is another key


def altered(rows: Rows) -> Iterator[Rows]:
    """The rows with one thing changed in their content, every way there is."""
    columns = rows.columns
    for field, values in columns.items():
        for at in (0, len(rows) // 2, len(rows) - 1):
            other = next((value for value in values if value != values[at]), None)
            if other is not None:
                yield replace(rows, columns={**columns, field: [*values[:at], other, *values[at + 1 :]]})
    yield rows[1:]
    yield rows[: len(rows) - 1]
    yield replace(rows, columns={field: [*values, values[0]] for field, values in columns.items()})
    yield replace(rows, columns={field: [values[1], values[0], *values[2:]] for field, values in columns.items()})
    yield replace(rows, columns={field: [*reversed(values)] for field, values in columns.items()})


@pytest.mark.parametrize("format", FORMATS)
def test_any_other_content_is_another_key(format: str, tokenizer: PreTrainedTokenizerFast) -> None:
    task = BY_FORMAT[format]
    rows, form = load(task), FORMATS[format]
    keys = [cache_key(form, each, task, tokenizer, max_length=LENGTH) for each in (rows, *altered(rows))]
    assert len(set(keys)) == len(keys) > 5
    same = replace(
        rows, identity="elsewhere", place="elsewhere", lang="xx", columns=dict(reversed(rows.columns.items()))
    )
    assert cache_key(form, same, task, tokenizer, max_length=LENGTH) == keys[0]


def test_values_do_not_run_into_each_other(tokenizer: PreTrainedTokenizerFast) -> None:
    """Texts that hold each separator there might be, cut at different places; numbers and texts of the same digits."""
    columns: list[dict[str, list[Any]]] = []
    for sign in ("", " ", ",", ", ", '"', '", "', '","', "\0", "\n", "\x1f", "\\", '\\"', "], [", "é", "\ud800"):
        columns.append({"text_a": [f"a{sign}b", "c"], "text_b": ["d", "e"], "label": [0, 1]})
        columns.append({"text_a": ["a", f"b{sign}c"], "text_b": ["d", "e"], "label": [0, 1]})
        columns.append({"text_a": ["a", "b"], "text_b": [f"c{sign}d", "e"], "label": [0, 1]})
    columns.append({"text_a": ["a", "b"], "text_b": ["c", "d"], "label": ["0", "1"]})
    columns.append({"text_a": ["a", "b"], "text_b": ["c", "d"], "label": [0, 1]})
    columns.append({"text_a": ["a", "b"], "text_b": ["c", "d"], "label": [0, 10]})
    columns.append({"text_a": ["a", "b"], "label": [0, 1]})
    columns += [{"tokens": tokens, "tags": [[0]]} for tokens in ([["a b"]], [["a", "b"]], [["a"], ["b"]], ["a b"])]
    task, form = get_task("xnli"), FORMATS["classification"]
    made = [Rows("xnli", "en", "test", each, "x", "x") for each in columns]
    assert len({cache_key(form, rows, task, tokenizer, max_length=LENGTH) for rows in made}) == len(columns)


def changed_tokenizers(folder: Path) -> Iterator[PreTrainedTokenizerFast]:
    def another() -> PreTrainedTokenizerFast:
        return Backbone(str(folder)).tokenizer

    added, normalised, cut, special = another(), another(), another(), another()
    added.add_tokens([AddedToken("child", single_word=True)])
    normalised.backend_tokenizer.normalizer = None
    cut.truncation_side = "left"
    special.sep_token = "<s>"
    yield from (added, normalised, cut, special)


def test_another_tokenizer_is_another_key(pairs: Rows, tiny_backbone: Path) -> None:
    task, form = get_task("xnli"), FORMATS["classification"]
    used, new = (Backbone(str(tiny_backbone)).tokenizer for _ in range(2))
    used(["a child sleeps"] * 2, truncation=True, max_length=3, padding="max_length")
    keys = [
        cache_key(form, pairs, task, each, max_length=LENGTH)
        for each in (used, new, *changed_tokenizers(tiny_backbone))
    ]
    assert keys[0] == keys[1], "what a tokenizer was used for is no part of it"
    assert len(set(keys)) == len(keys) - 1
    fresh(pairs, new)
    assert cache_key(form, pairs, task, new, max_length=LENGTH) == keys[0]


def test_hashing_a_tokenizer_changes_nothing_of_what_it_gives(tiny_backbone: Path) -> None:
    rows, tokenizer = load(get_task("tatoeba")), Backbone(str(tiny_backbone)).tokenizer
    task, form = get_task("tatoeba"), FORMATS["retrieval"]
    before = form.encode(rows, task, tokenizer, 9)
    cache_key(form, rows, task, tokenizer, max_length=9)
    assert form.encode(rows, task, tokenizer, 9) == before


@pytest.mark.parametrize("format", FORMATS)
def test_another_length_is_another_key(format: str, tokenizer: PreTrainedTokenizerFast) -> None:
    task = BY_FORMAT[format]
    rows = load(task)
    keys = {cache_key(FORMATS[format], rows, task, tokenizer, max_length=length) for length in (47, 48, 49, 4)}
    assert len(keys) == 4


@pytest.mark.parametrize("name", ["DOC_STRIDE", "MAX_QUERY_LENGTH"])
def test_another_constant_of_the_format_is_a_miss(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load(get_task("xquad"), 20)
    before = get(rows, tokenizer, tmp_path)
    monkeypatch.setattr(span, name, 5)
    after = get(rows, tokenizer, tmp_path)
    assert contents(after) == contents(fresh(rows, tokenizer)) != contents(before)


def test_version_format_labels_and_libraries_are_in_the_key(
    pairs: Rows, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, form = get_task("xnli"), FORMATS["classification"]

    def key(rows: Rows = pairs, task: Task = task, form: Format = form) -> str:
        return cache_key(form, rows, task, tokenizer, max_length=LENGTH)

    keys = [key(), key(task=task.model_copy(update={"labels": task.labels[:2]})), key(replace(pairs, no_answer=True))]
    keys += [key(task=task.model_copy(update={"format": "choice"}), form=FORMATS["choice"])]
    for place, name, value in (
        (cache, "ENTRY_VERSION", 0),
        (cache, "ENCODING_VERSIONS", {"classification": 2}),
        (cache.tokenizers, "__version__", "0"),
        (cache.transformers, "__version__", "0"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, value)
            keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def spelling_tokenizer() -> PreTrainedTokenizerFast:
    """Made by hand, so that nothing but the formats can change what they give: digits are pieces of their own."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "w", *"0123456789"]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"cls": "<s>", "bos": "<s>", "pad": "<pad>", "sep": "</s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": piece for name, piece in names.items()}
    )


def written_rows() -> dict[str, dict[str, list[Any]]]:
    """Columns for each format: short, too long for a feature of 24 tokens, and too long for one of 200."""
    texts = [" ".join(f"w{i * j % 50}" for j in range(1, words)) for i, words in enumerate((4, 130, 3, 9, 12))]
    words = [text.split() for text in texts]
    return {
        "classification": {"text_a": texts, "text_b": texts[::-1], "label": [0, 1, 2, 1, 0]},
        "tagging": {"tokens": [*words, ["w" + "1" * 30]], "tags": [*([i % 3 for i in range(len(w))] for w in words), [2]]},
        "span": {
            "id": ["a", "b", "c"], "context": [texts[1], texts[0], texts[1]], "question": [texts[2], texts[3], texts[1]],
            "answers": [[("w20", texts[1].index("w20"))], [], [("w2 w3", texts[1].index("w2 w3"))]],
        },
        "choice": {
            "prompt": texts, "stem": ["", "w1", "w2", "", "w3"], "choices": [[a, b] for a, b in zip(texts, texts[::-1], strict=True)],
            "label": [0, 1, 1, 0, 1],
        },
        "retrieval": {"source": texts, "target": texts[::-1]},
        "mining": {"side": ["foreign"] * 5, "id": [*"abcde"], "text": texts, "gold": [""] * 5, "split": ["test"] * 5},
        "mlm": {"text": texts},
    }  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_an_encoding_that_changes_has_another_version(format: str) -> None:
    """Else entries of before would be used. Where it does: raise its number in ENCODING_VERSIONS, then edit the file."""
    task = BY_FORMAT[format].model_copy(update={"labels": ("a", "b")})
    rows = Rows(task.name, "en", "test", written_rows()[format], "made up", "made up")
    made = [contents(FORMATS[format].encode(rows, task, spelling_tokenizer(), length)) for length in (24, 200)]
    digest = hashlib.sha256(json.dumps(made, default=asdict).encode()).hexdigest()
    golden = json.loads((Path(__file__).parent / "golden" / "encodings.json").read_text())
    assert {"version": cache.ENCODING_VERSIONS.get(format, 1), "sha256": digest} == golden[format]


# faults


def test_any_failing_system_call_costs_time_only(
    pairs: Rows, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    expected, failures = contents(fresh(pairs, tokenizer)), 0
    for number in range(1, 100):
        folder, calls = tmp_path / "cache" / str(number), []
        with at_call(number, disk_full) as made:
            features = get(pairs, tokenizer, folder)
        assert contents(features) == expected
        assert not list(folder.glob("*.partial"))
        kept = list(folder.glob("*.safetensors"))
        failures += not kept
        assert contents(get(pairs, tokenizer, folder, lambda calls=calls: calls.append(1))) == expected
        assert bool(calls) == (not kept), "what is there is whole"
        assert entry(folder)
        if len(made) < number:
            break
    assert {"mkdir", "open", "write", "fsync", "replace"} <= set(made)
    assert failures >= 5
    assert kept


def test_a_disk_that_fills_up_halfway_leaves_nothing(
    pairs: Rows, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    get(pairs, tokenizer, tmp_path)
    path = entry(tmp_path)
    path.unlink()
    path.with_suffix(".partial").symlink_to("/dev/full")
    assert contents(get(pairs, tokenizer, tmp_path)) == contents(fresh(pairs, tokenizer))
    assert [each.suffix for each in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_costs_time_only(
    pairs: Rows, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "tokens"):
        calls: list[int] = []
        assert contents(get(pairs, tokenizer, folder, lambda calls=calls: calls.append(1))) == contents(
            fresh(pairs, tokenizer)
        )
        assert len(calls) == 3, "encoded once, in three parts"
    assert (tmp_path / "file").read_text() == "no folder"


def test_an_error_of_the_encoding_is_not_swallowed(
    pairs: Rows, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise OSError("the encoding failed")

    with pytest.raises(OSError, match="the encoding failed"):
        get(pairs, tokenizer, tmp_path, fail)
    assert len(calls) == 1
    assert not list(tmp_path.glob("*.safetensors"))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-len(data) // 4] ^= 4
    path.write_bytes(data)


def reshaped(path: Path) -> None:
    tensors = load_file(path)
    tensors["ids.lengths"] = tensors["ids.lengths"][1:]
    save_file(tensors, path, metadata_of(path))


def emptied(path: Path) -> None:
    save_file({"ids": np.zeros(0, np.int32)}, path, metadata_of(path))


def unmarked(path: Path) -> None:
    save_file(load_file(path), path)


def metadata_of(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    found: dict[str, str] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return found


DAMAGES: dict[str, Callable[[Path], object]] = {
    "nothing in it": lambda path: path.write_bytes(b""),
    "cut off in the header": lambda path: os.truncate(path, 20),
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "garbage": lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bit flipped": flipped,
    "wrong shape": reshaped,
    "tensors lacking": emptied,
    "no metadata": unmarked,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_anew(
    damage: str, pairs: Rows, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    expected = contents(get(pairs, tokenizer, tmp_path))
    whole = entry(tmp_path).read_bytes()
    DAMAGES[damage](entry(tmp_path))
    assert entry(tmp_path).read_bytes() != whole
    calls: list[int] = []
    assert contents(get(pairs, tokenizer, tmp_path, lambda: calls.append(1))) == expected
    assert calls
    assert entry(tmp_path).read_bytes() == whole


def test_another_entry_under_this_name_is_not_used(
    pairs: Rows, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    get(pairs, tokenizer, tmp_path / "a")
    get(pairs[1:], tokenizer, tmp_path / "b")
    entry(tmp_path / "a").write_bytes(entry(tmp_path / "b").read_bytes())
    assert contents(get(pairs, tokenizer, tmp_path / "a")) == contents(fresh(pairs, tokenizer))


# several processes


def in_a_process(call: str, *args: object) -> str:
    """What a function of this file prints in a process of its own, which may fork: it has used no threads yet."""
    program = f"import sys, test_token_cache; test_token_cache.{call}(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, args)], cwd=Path(__file__).parent, text=True, timeout=600,
        stdout=subprocess.PIPE, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )  # fmt: skip
    assert done.returncode == 0
    return done.stdout


def forked(act: Callable[[], object]) -> int:
    """The id of a process that does this and ends, well unless it raised."""
    if child := os.fork():
        return child
    try:
        act()
        os._exit(0)
    finally:
        os._exit(1)


def compete(backbone: str, folder: str, tally: str) -> None:
    """Eight processes want one entry; its lock is held here until all of them wait for it."""
    cache.SMALLEST = 1
    task, tokenizer, kept = get_task("xnli"), Backbone(backbone).tokenizer, Path(folder)
    rows, real = load(task, 20), cache.locked
    expected = contents(fresh(rows, tokenizer))
    (gate, open_gate), (waits, tell) = os.pipe(), os.pipe()

    def note() -> None:
        with open(tally, "a") as file:
            file.write("encoded\n")

    def want() -> None:
        os.read(gate, 1)
        cache.locked = lambda path, waiting: real(path, lambda: os.write(tell, b"w"))
        assert contents(get(rows, tokenizer, kept, note)) == expected

    children = [forked(want) for _ in range(8)]
    os.close(tell)
    form = counted(FORMATS[task.format], note)
    kept.mkdir()
    with FileLock(kept / f"{cache_key(form, rows, task, tokenizer, max_length=LENGTH)}.lock"):
        os.write(open_gate, b"." * 8)
        waiting = [os.read(waits, 1) for _ in range(8)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    print(b"".join(waiting).decode())


def test_eight_processes_that_want_the_same_make_it_once(tiny_backbone: Path, tmp_path: Path) -> None:
    folder, tally = tmp_path / "tokens", tmp_path / "tally"
    assert in_a_process("compete", tiny_backbone, folder, tally).strip() == "w" * 8, "all had to wait"
    assert tally.read_text() == "encoded\n"
    assert entry(folder)


def die_at_every_call(backbone: str, root: str) -> None:
    """For each n: a process that dies at its n-th system call, then one that must find its way."""
    cache.SMALLEST = 1
    tokenizer, rows = Backbone(backbone).tokenizer, load(get_task("xnli"), 20)
    expected = contents(fresh(rows, tokenizer))

    def attempt(folder: Path, number: int) -> None:
        with at_call(number, die):
            get(rows, tokenizer, folder)

    for number in range(1, 100):
        folder = Path(root, str(number))
        ended = os.waitpid(forked(lambda folder=folder, number=number: attempt(folder, number)), 0)[1]
        for _ in range(2):
            assert contents(get(rows, tokenizer, folder)) == expected
        assert [path.suffix for path in sorted(folder.iterdir())] == [".lock", ".safetensors"]
        if ended == 0:
            print(number)
            return
        assert ended == signal.SIGKILL
    raise AssertionError("it never ended well")


def test_a_process_killed_at_any_system_call_leaves_nothing_that_is_used(tiny_backbone: Path, tmp_path: Path) -> None:
    assert int(in_a_process("die_at_every_call", tiny_backbone, tmp_path)) > 5


def test_a_token_takes_four_bytes(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    rows = load(get_task("xnli"), 300)
    features = get(rows, tokenizer, tmp_path)
    assert isinstance(features.input_ids, Ragged)
    assert features.input_ids.flat.nbytes == 4 * sum(features.lengths)
    assert entry(tmp_path).stat().st_size < 5 * sum(features.lengths) + 2000

"""Encoded rows, kept on disk under what they were made from, so that rows are tokenised once on a machine."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import safetensors
import safetensors.numpy
import tokenizers
import transformers
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.data.ragged import Ragged, RaggedOffsets
from xadapt.formats.features import Features, Format
from xadapt.formats.masking import Masking
from xadapt.locks import locked
from xadapt.tasks import Task

ENTRY_VERSION = 1  # of the key and of what an entry holds
# Raised for a format whose `encode` gives something else than before; a format that is not listed has 1.
ENCODING_VERSIONS: dict[str, int] = {}
# Fewer rows are encoded anew: so many pairs take 35 ms to encode and 1 ms to read, but the first key of a process takes
# 65 ms, for the hash of a tokenizer of 250,000 pieces.
SMALLEST = 256
# Rows encoded at once: lists of ints, and what the tokenizer keeps beside them, are only ever held for so many.
CHUNK = 4096
WHOLE = frozenset({"retrieval"})  # formats whose features do not follow the rows one after the other

_hashes: WeakKeyDictionary[PreTrainedTokenizerFast, str] = WeakKeyDictionary()


def encoded(
    form: Format, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, *, max_length: int, folder: Path | None
) -> Features:
    """What `form.encode` gives, as compact lists, from `folder` if it has been made before.

    Processes that want the same at once make it once, and a damaged entry is made anew. A folder that cannot be
    written, or None, costs time and nothing else.
    """

    def make() -> _Entry:
        return _encode(form, rows, task, tokenizer, max_length)

    if folder is None or len(rows) < SMALLEST:
        return make().features()
    key = cache_key(form, rows, task, tokenizer, max_length=max_length)
    return _kept(folder / f"{key}.safetensors", key, make).features()


def cache_key(form: Format, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, *, max_length: int) -> str:
    """sha256 over what `form.encode` may read: the columns, the tokenizer, max_length, the numbers of its module.

    TypeError for a value in the columns that JSON cannot hold.
    """
    facts = {
        "entry": ENTRY_VERSION,
        "format": [task.format, ENCODING_VERSIONS.get(task.format, 1), _constants(form)],
        "libraries": [tokenizers.__version__, transformers.__version__],
        "tokenizer": _tokenizer_facts(tokenizer),
        "max_length": max_length,
        "task": [len(task.labels), rows.no_answer],
        "rows": _rows_hash(rows),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _constants(form: Format) -> dict[str, int | float | str]:
    """What stands in capitals in the format's module and in those of its bases."""
    namespaces = [vars(sys.modules[base.__module__]) for base in reversed(type(form).__mro__)]
    return {
        name: value
        for namespace in namespaces
        for name, value in namespace.items()
        if name.isupper() and isinstance(value, int | float | str)
    }


def _tokenizer_facts(tokenizer: PreTrainedTokenizerFast) -> list[Any]:
    if tokenizer not in _hashes:
        backend = tokenizer.backend_tokenizer
        # These stay from the last call and are no content; transformers sets both anew at every call.
        backend.no_truncation()
        backend.no_padding()
        _hashes[tokenizer] = hashlib.sha256(backend.to_str().encode()).hexdigest()
    return [_hashes[tokenizer], tokenizer.special_tokens_map, tokenizer.all_special_ids, tokenizer.truncation_side]


def _rows_hash(rows: Rows) -> str:
    """A hash of all values in their order; JSON keeps text, number and list apart."""
    digest = hashlib.sha256()
    for field, values in sorted(rows.columns.items()):
        digest.update(json.dumps([field, len(values)]).encode())
        for at in range(0, len(values), CHUNK):
            chunk = json.dumps(list(values[at : at + CHUNK]), ensure_ascii=False)
            digest.update(chunk.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Entry:
    """Features as tensors, lists end to end under a name and their lengths under `<name>.lengths`; the rest as facts."""

    tensors: dict[str, NDArray[np.int32]]
    facts: dict[str, Any]

    @classmethod
    def of(cls, features: Features, first_row: int) -> "_Entry":
        ids, labels, offsets = Ragged.of(features.input_ids), features.labels, features.offsets
        tensors = {**_named("ids", ids), "row": np.array(features.row, np.int32) + np.int32(first_row)}
        if labels is not None:
            each_token = len(labels) and isinstance(labels[0], Sequence)
            lists: Any = labels
            tensors |= _named("labels", Ragged.of(lists)) if each_token else {"labels": np.array(labels, np.int32)}
        if offsets is not None:
            tensors |= _named("offsets", RaggedOffsets.of(offsets))
        masking = features.masking and asdict(features.masking)
        return cls(tensors, {"sequences": features.sequences, "masking": masking})

    @classmethod
    def joined(cls, parts: Sequence["_Entry"]) -> "_Entry":
        names = parts[0].tensors
        return cls({name: np.concatenate([part.tensors[name] for part in parts]) for name in names}, parts[0].facts)

    def features(self) -> Features:
        """The features, with lists that are made when they are asked for."""
        tensors, masking = self.tensors, self.facts["masking"]
        ids = Ragged.cut(tensors["ids"], tensors["ids.lengths"])
        labels: Any = tensors.get("labels")
        if labels is not None:
            each = tensors.get("labels.lengths")
            labels = labels.tolist() if each is None else Ragged.cut(labels, each)
        row: NDArray[np.int32] = tensors["row"]
        return Features(
            ids,
            labels,
            range(len(row)) if np.array_equal(row, np.arange(len(row))) else row.tolist(),
            sequences=self.facts["sequences"],
            offsets=RaggedOffsets.cut(tensors["offsets"], tensors["offsets.lengths"]) if "offsets" in tensors else None,
            masking=Masking(**masking | {"special_ids": tuple(masking["special_ids"])}) if masking else None,
        )


def _named(name: str, lists: Ragged | RaggedOffsets) -> dict[str, NDArray[np.int32]]:
    return {name: lists.flat, f"{name}.lengths": lists.lengths.astype(np.int32)}


def _encode(form: Format, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> _Entry:
    size = max(len(rows), 1) if task.format in WHOLE else CHUNK
    starts = range(0, max(len(rows), 1), size)
    parts = [_Entry.of(form.encode(rows[at : at + size], task, tokenizer, max_length), at) for at in starts]
    return _Entry.joined([part for part in parts if len(part.tensors["row"])] or parts[:1])


def _kept(path: Path, key: str, make: Callable[[], _Entry]) -> _Entry:
    """The entry of this key, made and written if it is not there; one process makes it, the others wait."""
    if found := _read(path, key):
        return found
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path.with_suffix(".lock"), lambda: None))
        except (OSError, NotImplementedError):  # read-only, full, or without locks
            return make()
        if found := _read(path, key):  # whoever held the lock before us may have made it
            return found
        made = make()
        _write(path, key, made)
        return made


def _read(path: Path, key: str) -> _Entry | None:
    """What was written under this key; None if nothing was, or it is damaged."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            written = json.loads(file.metadata()["entry"])
        found = _Entry(tensors, written["facts"])
        whole = written["sha256"] == _digest(found, key)
    except Exception:  # no file, or whatever bytes that are no entry make of the reader
        return None
    return found if whole else None


def _write(path: Path, key: str, entry: _Entry) -> None:
    """Write aside, sync and rename; where that fails nothing is left."""
    partial = path.with_suffix(".partial")
    written = json.dumps({"facts": entry.facts, "sha256": _digest(entry, key)})
    try:
        with open(partial, "wb") as file:
            file.write(safetensors.numpy.save(entry.tensors, {"entry": written}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with suppress(OSError):
            partial.unlink()


def _digest(entry: _Entry, key: str) -> str:
    digest = hashlib.sha256(json.dumps([key, entry.facts], sort_keys=True).encode())
    for name, tensor in sorted(entry.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape};".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()

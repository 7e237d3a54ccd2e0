"""Carry the embedded encoder and the data of a study to a machine without a network, in few megabytes.

    python experiments/gpu/carried.py pack MIRROR FOLDER ROWS TASK...   # here: 4-bit weights of the pieces that occur, data
    python experiments/gpu/carried.py unpack FOLDER CACHE               # there: the embedded backbone in XADAPT_CACHE

Files of training rows go whole, of others the first ROWS.
The vocabulary is cut to the pieces of the data, which pack checks to change no text's pieces. So what is trained on that
data is what the whole backbone would give, as long as nothing reads other rows of the embedding matrix (mlm does).
"""

import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from xadapt.models import embedded

SOURCE = "e5-small-trimmed.bin"
# the pieces before it are the roles of a tokenizer
FIRST = 5


def pack(mirror: Path, folder: Path, rows: int, tasks: list[str]) -> None:
    for path in (path for task in tasks for path in sorted((mirror / task).rglob("*.parquet"))):
        target = folder / "data" / path.relative_to(mirror)
        target.parent.mkdir(parents=True, exist_ok=True)
        table = pq.read_table(path)
        pq.write_table(table if path.stem == "train" else table.slice(0, rows), target, compression="zstd")
    words = {word for text in texts(folder / "data") for word in text.split()}
    whole = Tokenizer.from_file(str(embedded.embedded_folder() / "tokenizer.json"))
    pieces = encoded(whole, words)
    model = embedded._parse(embedded._source_path().read_bytes())
    kept = sorted(kept_ids(model, pieces, whole))
    (folder / SOURCE).write_bytes(trimmed(model, kept))
    unpack(folder, folder / "check")
    check = Tokenizer.from_file(str(next(folder.glob("check/*/tokenizer.json"))))
    new = {old: at for at, old in enumerate(kept)}
    same = encoded(check, words) == {word: [new[old] for old in ids] for word, ids in pieces.items()}
    shutil.rmtree(folder / "check")
    if not same:
        sys.exit("the trimmed tokenizer cuts some word otherwise")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{len(words)} words, {len(kept)} of {len(model.pieces)} pieces, {size / 1e6:.1f} MB")


def unpack(folder: Path, cache: Path) -> None:
    model = embedded._parse((folder / SOURCE).read_bytes())
    target = cache / f"embedded-{embedded.EMBEDDED_SHA256[:8]}-v{embedded.CONVERTER_VERSION}"
    target.mkdir(parents=True)
    for write in (embedded._write_config, embedded._write_tokenizer, embedded._write_weights):
        write(model, target)
    embedded._write_manifest(target)


def texts(folder: Path) -> Iterator[str]:
    """Every string of every file, and with a capital as hellaswag's second half gets one."""
    for path in folder.rglob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            for text in strings(row):
                yield text
                yield text.capitalize()


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def encoded(tokenizer: Any, words: set[str]) -> dict[str, list[int]]:
    """The pieces of every word; words are what is cut, so texts follow."""
    order = sorted(words)
    found = tokenizer.encode_batch(order, add_special_tokens=False)
    return {word: of.ids for word, of in zip(order, found, strict=True)}


def kept_ids(model: embedded._Model, pieces: dict[str, list[int]], whole: Any) -> set[int]:
    roles = {*range(FIRST), model.pieces.index("<mask>")}
    least = min(
        range(FIRST, len(model.pieces)), key=model.scores.__getitem__
    )  # what an unknown character costs hangs on it
    return {at for ids in pieces.values() for at in ids} | roles | {least}


def trimmed(model: embedded._Model, kept: list[int]) -> bytes:
    """The converter's file with some of the pieces and their rows."""
    hidden = model.shape[0]
    row = hidden // embedded._BLOCK * (2 + embedded._BLOCK // 2)
    blobs = {}
    for name, (_, _, offset, size) in model.tensors.items():
        blobs[name] = model.data[offset : offset + size]
    words = np.frombuffer(blobs["emb.word"], np.uint8).reshape(-1, row)
    blobs["emb.word"] = words[kept].tobytes()
    texts = [model.pieces[at].encode() for at in kept]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<u4")
    scores = np.array([model.scores[at] for at in kept], "<f4")
    head = model.data[:8] + struct.pack("<7i", *model.shape) + struct.pack("<f", model.eps)
    head += struct.pack("<6iQ", embedded._BLOCK, len(kept), 0, 2, 1, 3, int(offsets[-1]))
    head += offsets.tobytes() + scores.tobytes() + b"".join(texts) + struct.pack("<iI", 0, 0)
    head += struct.pack("<i", len(blobs))
    start = len(head) + sum(2 + len(name.encode()) + struct.calcsize("<BIQQ") for name in blobs)
    table = b""
    for name, blob in blobs.items():
        dtype, elements = model.tensors[name][:2]
        count = len(kept) * hidden if name == "emb.word" else elements
        table += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", dtype, count, start, len(blob))
        start += len(blob)
    return head + table + b"".join(blobs.values())


def main() -> None:
    match sys.argv[1:]:
        case ["pack", mirror, folder, rows, *tasks] if tasks:
            pack(Path(mirror), Path(folder), int(rows), tasks)
        case ["unpack", folder, cache]:
            unpack(Path(folder), Path(cache))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()

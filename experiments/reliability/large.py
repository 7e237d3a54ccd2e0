"""Memory while a million rows are evaluated, and while 400,000 sentences are mined for their 400,000 translations.

    python experiments/reliability/large.py [--rows 1000000] [--sentences 400000] [--width 64]

Rows are read, cut into pieces, predicted by a stub, scored and written as `evaluate` does it; vectors are random. Prints the
resident memory at its peak for a tenth of the size and for the whole.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from xadapt.data import open_source
from xadapt.evaluation.predictions import PredictionFile
from xadapt.evaluation.zero_shot import evaluate_languages
from xadapt.formats import mining
from xadapt.formats.features import Features
from xadapt.models.backbone import Backbone
from xadapt.tasks import get_task

CHUNK = 50_000


def predict(features: Features) -> list[torch.Tensor]:
    return [torch.eye(3)[sum(ids) % 3] for ids in features.input_ids]


def write_rows(root: Path, lang: str, rows: int) -> None:
    path = root / "xnli" / lang / "test.parquet"
    path.parent.mkdir(parents=True)
    schema = pa.schema([("premise", pa.string()), ("hypothesis", pa.string()), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, rows, CHUNK):
            at = range(start, min(start + CHUNK, rows))
            columns = [[f"it rains on day {i}" for i in at], [f"wet {i}" for i in at], [i % 3 for i in at]]
            file.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema))


def evaluate(root: Path, lang: str, rows: int) -> None:
    task, tokenizer = get_task("xnli"), Backbone("embedded").tokenizer
    write_rows(root, lang, rows)
    pieces = open_source(str(root)).pieces(task, lang, "test")
    with PredictionFile(root / f"{lang}.parquet", task) as file:
        (result,) = evaluate_languages(
            task, [(lang, pieces)], predict, tokenizer, max_length=32, keep=file.write, token_cache=root / "tokens"
        )
    assert result.n == rows


def mine(sentences: int, width: int) -> None:
    torch.manual_seed(0)
    english = torch.nn.functional.normalize(torch.randn(sentences, width), dim=1)
    order = torch.randperm(sentences)
    foreign = torch.nn.functional.normalize(english[order] + 0.05 * torch.randn(sentences, width), dim=1)
    found = mining.mine(foreign, english)
    right = sum(int(order[i]) == j for _, i, j in found)
    print(f"    {len(found):,} pairs, {right:,} of them right")


def peak(work: Callable[[], None]) -> tuple[float, float]:
    """MiB at the peak above what was there before, and seconds."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.perf_counter()
    work()
    return resident("VmHWM") - before, time.perf_counter() - start


def resident(name: str) -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sentences", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("reads /proc")
    with tempfile.TemporaryDirectory() as folder:
        evaluate(Path(folder), "de", 1000)  # what is loaded once
        for lang, rows in (("en", options.rows // 10), ("sw", options.rows)):
            mib, seconds = peak(lambda lang=lang, rows=rows: evaluate(Path(folder), lang, rows))
            print(f"{rows:,} rows evaluated: {mib:.0f} MiB, {seconds:.0f} s", flush=True)
    for sentences in (options.sentences // 10, options.sentences):
        mib, seconds = peak(lambda sentences=sentences: mine(sentences, options.width))
        print(f"{sentences:,} x {sentences:,} mined: {mib:.0f} MiB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Ten thousand steps leave no more behind than a thousand: memory and open files stay where they were."""

import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_training import changed, job, training

from xadapt.models.backbone import Backbone
from xadapt.training.checkpoint import Checkpoints
from xadapt.training.log import JsonLog
from xadapt.training.settings import SaveEvery

STEPS, MIB = 10_000, 1 << 20
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


class Meter:
    """A monitor that notes resident bytes and open files at steps."""

    def __init__(self, *at: int) -> None:
        self.at, self.found = at, dict[int, tuple[int, int]]()

    def step(self, step: int, total: int, values: dict[str, Any]) -> None:
        if step in self.at:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.found[step] = pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


@pytest.fixture
def log(tmp_path: Path) -> Iterator[JsonLog]:
    with JsonLog(tmp_path / "log.jsonl") as opened:
        yield opened


def test_ten_thousand_steps_leave_memory_and_open_files_where_they_were(
    log: JsonLog, tiny_backbone: Path, tmp_path: Path
) -> None:
    """Checkpoints every thousand steps and a dev score every five hundred, as in a long training."""
    meter = Meter(2000, STEPS)
    made = training(
        job(Backbone(str(tiny_backbone)), "lora"), changed(max_steps=STEPS, eval_steps=500, per_device_train_batch_size=2),
        monitors=[log, meter],
    )  # fmt: skip
    made.checkpoints = Checkpoints(tmp_path / "checkpoints", SaveEvery(steps=1000))
    made.run()
    (early, files), (late, files_late) = meter.found[2000], meter.found[STEPS]
    assert files_late == files
    # the losses themselves and the allocator's whims
    assert late - early < 8 * MIB, f"{(late - early) / MIB:.1f} MiB in {STEPS - 2000} steps"
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert sum("loss" in json.loads(line) for line in lines) == STEPS

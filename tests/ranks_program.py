"""What two processes run in test_ranks.py: a training each kind, its losses and parameters written by the main one."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from test_resume import StopAt, mixture, run, single
from test_training import snapshot

from xadapt.interruption import Interrupted, resumable
from xadapt.models.backbone import Backbone
from xadapt.training.loop import Training

KINDS = {
    "full": ("full", "classification"), "full tagging": ("full", "tagging"), "adapter": ("seq_bn", "classification"),
    "lora": ("lora", "tagging"), "mixture": None,
}  # fmt: skip


def still(training: Training) -> Training:
    """Without dropout, whose draws differ between processes."""
    for module in training.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return training


def train(folder: Path, backbone: Backbone, kind: str, *, stop: int = 0) -> None:
    """A training in this process, or in this one and others; with `stop` one that is stopped behind a step first."""
    of = KINDS[kind]
    make = single(backbone, *of) if of else mixture(backbone)
    if stop:
        monitor = StopAt(stop if int(torch.distributed.get_rank() == 1) else 0)
        with resumable():
            try:
                run(still(make(folder, monitor)))
            except Interrupted:
                pass
            else:
                raise AssertionError("it was not stopped")
    training = still(make(folder))
    run(training)
    result = training.result
    if training.ranks.main:
        numbers = {"losses": result.losses, "best": result.best_step, "resumed": result.resumed, "examples": result.examples, "tokens": result.tokens}  # fmt: skip
        (folder / "result.json").write_text(json.dumps(numbers))
        save_file(
            {name: tensor.contiguous() for name, tensor in snapshot(training.model).items()},
            folder / "state.safetensors",
        )


if __name__ == "__main__":
    root, model = Path(sys.argv[1]), Backbone(sys.argv[2])
    for name in KINDS:
        train(root / name, model, name)
    train(root / "stopped", model, "full tagging", stop=3)

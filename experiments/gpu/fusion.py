"""A training step of AdapterFusion over nine adapters: the library's computation, ours, and full fine-tuning beside them.

    python experiments/gpu/fusion.py [--rows 32] [--tokens 128] [--steps 20] [--width 768]

The encoder has XLM-R base's layers with random weights and a small vocabulary: what a step costs does not hang on what
they are. Prints milliseconds a step (median and spread, after warm-up) and MiB at the peak above what lay there before.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import XLMRobertaConfig, XLMRobertaModel

from xadapt.models.backbone import Backbone
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FullSpec, FusionSpec

WARMUP, ADAPTERS = 5, 9
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def untrained(folder: Path, width: int) -> Backbone:
    shape = {"hidden_size": width, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 4 * width}
    config = XLMRobertaConfig(vocab_size=1000, max_position_embeddings=514, type_vocab_size=1, **shape)
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")  # of which nothing is asked here
    return Backbone(str(folder))


def adapters(backbone: Backbone, root: Path) -> list[Path]:
    regime, folders = open_regime(AdapterSpec()), [root / f"adapter{number}" for number in range(ADAPTERS)]
    for folder in folders:
        regime.save(regime.attach(backbone, name=folder.name), folder, name=folder.name)
    return folders


def measured(encoder: torch.nn.Module, batch: dict[str, torch.Tensor], steps: int) -> tuple[list[float], float]:
    """Milliseconds of each step after the warm-up, and the peak in MiB."""
    encoder.to(DEVICE).train()
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-4)
    found: list[float] = []
    for step in range(WARMUP + steps):
        if step == WARMUP and DEVICE == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = encoder(**batch).last_hidden_state[:, 0].float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        found.append(1000 * (time.perf_counter() - start))
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if DEVICE == "cuda" else float("nan")
    return found[WARMUP:], peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 32), ("tokens", 128), ("steps", 20), ("width", 768)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        backbone = untrained(Path(folder) / "encoder", options.width)
        parts = adapters(backbone, Path(folder))
        module = open_regime(AdapterSpec())

        def fused(*, reference: bool) -> torch.nn.Module:
            return module.attach(backbone, name=None, fuse=parts, fusion=FusionSpec(reference=reference))

        models: dict[str, Callable[[], torch.nn.Module]] = {
            "full fine-tuning": lambda: open_regime(FullSpec()).attach(backbone, name="x"),
            "one adapter": lambda: module.attach(backbone, name="x"),
            "fusion of 9, library": lambda: fused(reference=True),
            "fusion of 9, rewritten": lambda: fused(reference=False),
        }
        ids = torch.randint(5, 1000, (options.rows, options.tokens), device=DEVICE)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for name, make in models.items():
            times, peak = measured(make(), batch, options.steps)
            deciles = statistics.quantiles(times, n=10)
            print(f"{name:24} {statistics.median(times):8.2f} ms [{deciles[0]:.2f}, {deciles[-1]:.2f}] {peak:8.0f} MiB")


if __name__ == "__main__":
    main()

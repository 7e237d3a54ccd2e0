"""The average stage: the weighted mean of several modules, without any training."""

from typing import Any

from xadapt.regimes.protocol import open_regime
from xadapt.study.self_check import Example, checked, write_check
from xadapt.study.surroundings import REGIME_SPEC, Surroundings


def average(around: Surroundings) -> dict[str, Any]:
    """Write the mean of the modules a stage needs; the stage's record."""
    spec, folder = around.stage.spec, around.folder
    folders = [checked(around, need).folder for need in around.stage.needs]
    regime = open_regime(REGIME_SPEC.validate_python(spec["regime"]))
    regime.average(folders, spec["weights"], folder, name="average")
    write_check(folder, regime.load(around.backbone, folder), [Example.of_sentences(around.backbone.tokenizer)])
    return {"modules": len(folders), "weights": spec["weights"], "trainable_parameters": 0}

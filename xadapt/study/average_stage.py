"""The average stage: the weighted mean of several modules, without any training."""

from typing import Any

from xadapt.regimes.protocol import open_regime
from xadapt.study.surroundings import REGIME_SPEC, Surroundings


def average(around: Surroundings) -> dict[str, Any]:
    """Write the mean of the modules a stage needs; the stage's record."""
    spec, store = around.stage.spec, around.store
    folders = [store.verified(need).folder for need in around.stage.needs]
    open_regime(REGIME_SPEC.validate_python(spec["regime"])).average(
        folders, spec["weights"], around.folder, name="average"
    )
    return {"modules": len(folders), "weights": spec["weights"], "trainable_parameters": 0}

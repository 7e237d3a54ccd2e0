"""What a stage does: train a model, average modules, or evaluate on every language."""

from pathlib import Path
from typing import Any

from xadapt.data import open_source
from xadapt.errors import UserError
from xadapt.models.backbone import Backbone
from xadapt.study.average_stage import average
from xadapt.study.evaluate_stage import evaluate
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt.study.surroundings import Reporter, Surroundings
from xadapt.study.train_stage import Train


def run_stage(stage: Stage, store: Store, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Do the stage's work into `folder`; the record for its manifest. UserError for what a user can mend."""
    backbone = Backbone(stage.where["backbone"])
    if backbone.identity != stage.spec["backbone"]:
        raise UserError(f"backbone '{backbone.name}' has changed since the study was planned; run it again")
    around = Surroundings(stage, store, folder, reporter, backbone, open_source(stage.where["data"]))
    match stage.kind:
        case "train":
            return Train(around).run()
        case "average":
            return average(around)
        case "evaluate":
            return evaluate(around)

"""What a stage does: train a model, average or import modules, or evaluate on every language."""

from pathlib import Path
from typing import Any

from xadapt.study.average_stage import average
from xadapt.study.evaluate_stage import evaluate
from xadapt.study.execution import DEFAULT, Execution
from xadapt.study.import_stage import import_module
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt.study.surroundings import Reporter, surround
from xadapt.study.train_stage import Train


def run_stage(
    stage: Stage, store: Store, folder: Path, reporter: Reporter, execution: Execution = DEFAULT
) -> dict[str, Any]:
    """Do the stage's work into `folder`; the record for its manifest.

    Raises UserError for what a user can mend, and Interrupted where a stop was asked for: what is in the folder's
    `progress/` then is what the next start goes on from.
    """
    around = surround(stage, store, folder, reporter, execution)
    match stage.kind:
        case "train":
            return Train(around).run()
        case "average":
            return average(around)
        case "import":
            return import_module(around)
        case "evaluate":
            return evaluate(around)

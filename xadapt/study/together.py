"""Train stages whose modules are trained side by side, in the passes of one frozen encoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator

from xadapt.errors import UserError
from xadapt.regimes.several import SharedEncoder, attach_several
from xadapt.study.execution import DEFAULT, Execution
from xadapt.study.stage import Stage, canonical_json
from xadapt.study.store import Made, Result, Store
from xadapt.study.surroundings import REGIME_SPEC, Reporter, surround
from xadapt.study.train_stage import Train
from xadapt.tasks.user import task_of
from xadapt.training.cost import Peak, peak_memory
from xadapt.training.device import make_accelerator
from xadapt.training.loop import Training
from xadapt.training.result import FitResult
from xadapt.training.together import Together

# what a stage may say of itself to be trained with others; what is not known here is trained alone
_SPEC = {"backbone", "train", "dev", "tasks", "mixing", "regime", "composition", "training", "seed"}


def joint_trainings(stages: Sequence[Stage], store: Store) -> dict[str, tuple[Stage, ...]]:
    """For each stage that can be trained with others, by key, all of them in the plan's order.

    These are new modules of one regime, with nothing below them, on one backbone in one data type, that the store does
    not have. Modules of one name do not meet, for they are saved under it.
    """
    groups: list[tuple[str, dict[str, Stage]]] = []
    for stage in stages:
        if not _shares(stage) or not _missing(stage, store):
            continue
        spec = stage.spec
        alike = canonical_json([spec["backbone"], spec["regime"], spec["training"]["dtype"], stage.where])
        name = task_of(spec["tasks"][0]["dev"] if "tasks" in spec else spec["dev"]).name
        fitting = (members for key, members in groups if key == alike and name not in members)
        if (members := next(fitting, None)) is None:
            members = {}
            groups.append((alike, members))
        members[name] = stage
    found = [tuple(members.values()) for _, members in groups if len(members) > 1]
    return {stage.key: group for group in found for stage in group}


def train_together(
    stages: Sequence[Stage],
    store: Store,
    reporter: Reporter,
    *,
    waiting: Callable[[Stage], None],
    execution: Execution = DEFAULT,
) -> dict[str, Result | Exception]:
    """Train a group of `joint_trainings`; by key, each one's result, or the error that ended it.

    A result is what the stage alone would give on a CPU, to rounding; on other devices dropout draws other masks, and
    only without it are they the same. The provenance names all that were trained at once.
    """

    def work(folders: Mapping[str, Path]) -> Iterator[tuple[str, Made]]:
        return _work([stage for stage in stages if stage.key in folders], store, folders, reporter, execution)

    return store.run_several(stages, work, waiting=waiting)


def _shares(stage: Stage) -> bool:
    spec = stage.spec
    return (
        stage.kind == "train"
        and not stage.needs
        and spec.keys() <= _SPEC
        and spec["composition"] == "none"
        and spec["regime"]["name"] != "full"  # moves the encoder itself
        and not spec["training"].get("robust")  # looks for its inputs in passes of its own
    )


def _missing(stage: Stage, store: Store) -> bool:
    try:
        return store.find(stage) is None
    except UserError:  # told when it is the stage's turn
        return False


def _work(
    stages: Sequence[Stage], store: Store, folders: Mapping[str, Path], reporter: Reporter, execution: Execution
) -> Iterator[tuple[str, Made]]:
    """The key of each stage with its record or its error, as it ends."""
    runs: dict[str, _Run] = {}
    for stage in stages:
        try:
            run = _Run(Train(surround(stage, store, folders[stage.key], reporter, execution)))
        except Exception as error:
            yield stage.key, error
        else:
            runs[run.name] = run
    if not runs:
        return
    first = next(iter(runs.values())).train
    spec = REGIME_SPEC.validate_python(first.spec["regime"])
    shared = attach_several(spec, first.backbone, {name: run.train.spec["seed"] for name, run in runs.items()})
    accelerator = make_accelerator(first.settings.dtype)
    with ExitStack() as logs, peak_memory(accelerator.device) as peak:
        trainings = {}
        for name, run in runs.items():
            shared.free([name])
            trainings[name] = run.training(shared, accelerator, logs)
        shared.free(list(runs))
        for name, ended in Together(shared, trainings).run():
            yield runs[name].train.around.stage.key, runs[name].end(ended, shared, peak)


class _Run:
    """One of the stages: its rows, then its heads and its log."""

    def __init__(self, train: Train) -> None:
        self.train, self.found = train, train.encoded()
        assert train.module_name is not None, "a stage that has a module"
        self.name = train.module_name

    def training(self, shared: SharedEncoder, accelerator: Accelerator, logs: ExitStack) -> Training:
        """Its training, of what is trainable now; the log is closed with `logs` at the latest."""
        encoder = shared.encoder
        self.parameters = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
        self.heads = self.train.heads(encoder)
        log = self.train.open_log()
        logs.callback(log.close)
        monitors = [log, *self.train.around.reporter.monitors(self.train.around.stage)]
        return self.train.training(encoder, self.heads, self.found, accelerator, monitors)

    def end(self, ended: FitResult | Exception, shared: SharedEncoder, peak: Peak) -> Made:
        """Write the artefact; the record, or what went wrong."""
        self.train.log.close()
        if isinstance(ended, Exception):
            return ended
        peak.read()
        self.train.peak = peak
        try:
            shared.save(self.train.around.folder, name=self.name)
            examples = self.train.examples(self.found)
            return self.train.finish(shared.encoder, self.heads, examples, ended, self.parameters)
        except Exception as error:
            return error

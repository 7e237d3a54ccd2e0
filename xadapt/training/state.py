"""The whole state of a training, so that one that is stopped goes on as if it had not been."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from xadapt.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from xadapt.training.loop import Training

_SCHEDULE = ("last_epoch", "_step_count", "_last_lr")


@runtime_checkable
class Rewindable(Protocol):
    """A monitor whose record goes back to where a checkpoint was taken: `mark` says where, in JSON, `rewind` goes there.

    reaches says whether the record is still as it was there; rewind without a mark goes to the beginning.
    """

    def mark(self) -> Any: ...

    def reaches(self, mark: Any) -> bool: ...

    def rewind(self, mark: Any) -> None: ...


def captured(training: "Training") -> Checkpoint:
    """The state after the last step that was taken: parameters, best ones, optimizer, schedule, draws, what was told."""
    tensors = {f"parameter/{name}": parameter.detach() for name, parameter in training.trainable}
    tensors |= {f"best/{name}": tensor for name, tensor in training.best.items()}
    for name, parameter in training.trainable:
        of = training.optimizer.state.get(parameter, {})
        tensors |= {f"optimizer/{name}/{key}": torch.as_tensor(value) for key, value in of.items()}
    for name, state in random_states(training).items():
        tensors |= {f"random/{rank}/{name}": of for rank, of in enumerate(training.ranks.gathered(state))}
    result = training.result
    tensors["losses"] = torch.tensor(result.losses, dtype=torch.float64)
    schedule = training.schedule.state_dict()
    values = {
        "result": {f.name: getattr(result, f.name) for f in fields(result) if f.name not in ("losses", "best_metric")},
        "best_metric": result.best_metric if math.isfinite(result.best_metric) else None,
        "decay": training.decay,
        "token_budget": training.token_budget,
        "dtype": training.settings.dtype,
        "schedule": {name: schedule[name] for name in _SCHEDULE},
        "marks": [log.mark() for log in _logs(training)],
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    return Checkpoint(len(result.losses), tensors, values)


def begin_logs(training: "Training") -> None:
    """Drop what an earlier start told that is not gone on from."""
    for log in _logs(training):
        log.rewind(None)


def restorable(training: "Training", found: Checkpoint) -> bool:
    """Whether the log of a training reaches to where a checkpoint was taken, and is up to there what was written."""
    return all(log.reaches(mark) for log, mark in _marked(training, found))


def restore(training: "Training", found: Checkpoint) -> bool:
    """Put a training where a checkpoint was taken; False, with nothing changed, if its log does not lead there."""
    values, tensors = found.values, found.tensors
    if not restorable(training, found):
        return False
    for log, mark in _marked(training, found):
        log.rewind(mark)
    for name, parameter in training.trainable:
        parameter.data.copy_(tensors[f"parameter/{name}"])
        if of := _under(f"optimizer/{name}/", tensors):
            training.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in of.items()}
    training.best = _under("best/", tensors)
    training.schedule.load_state_dict(training.schedule.state_dict() | values["schedule"])
    for group, rate in zip(training.optimizer.param_groups, values["schedule"]["_last_lr"], strict=True):
        group["lr"] = rate
    for name, value in values["result"].items():
        setattr(training.result, name, value)
    training.result.losses = tensors["losses"].tolist()
    training.result.best_metric = -math.inf if values["best_metric"] is None else values["best_metric"]
    training.decay, training.token_budget = values["decay"], values["token_budget"]
    if states := _under(f"random/{training.ranks.rank}/", tensors):  # none, if there were fewer processes
        set_random_states(training, states)
    return True


def random_states(training: "Training") -> dict[str, Tensor]:
    """Where each generator stands that a step may draw from."""
    found = {"cpu": (training.generator or torch.default_generator).get_state()}
    if (device := training.accelerator.device).type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def set_random_states(training: "Training", states: Mapping[str, Tensor]) -> None:
    """Put the generators back to where they stood."""
    (training.generator or torch.default_generator).set_state(states["cpu"])
    if (device := training.accelerator.device).type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _marked(training: "Training", found: Checkpoint) -> list[tuple[Rewindable, Any]]:
    """The logs, each with its mark in a checkpoint; only the main of several processes keeps any."""
    return list(zip(_logs(training), found.values["marks"] if training.ranks.main else [], strict=True))


def _logs(training: "Training") -> list[Rewindable]:
    return [monitor for monitor in training.monitors if isinstance(monitor, Rewindable)]


def _under(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

"""How a stage of a plan ended; torch-free."""

from dataclasses import dataclass
from typing import Literal

from xadapt.study.stage import Stage
from xadapt.study.store import Result

Status = Literal["succeeded", "cached", "failed", "interrupted", "not run"]


@dataclass(frozen=True)
class Outcome:
    """How a stage ended; result is there for succeeded and cached, error for failed.

    interrupted is one that goes on where it was when it is run again, not run one that waits for what did not end well.
    """

    stage: Stage
    status: Status
    result: Result | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        return self.result is not None

"""A study that is run without showing anything."""

from collections.abc import Callable
from typing import Any

from xadapt.study.stage import Stage
from xadapt.training.result import Monitor


class Silent:
    """A reporter that shows nothing."""

    def monitors(self, stage: Stage) -> list[Monitor]:
        return []

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]:
        return lambda done: None

    def started(self, *_: Any) -> None: ...

    def waiting(self, *_: Any) -> None: ...

    def lost(self, *_: Any) -> None: ...

    def ended(self, *_: Any) -> None: ...

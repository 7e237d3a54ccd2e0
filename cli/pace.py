"""How long something will still take, from what was done since this start of it."""

import time


class Pace:
    """Time left of a counted job. What an earlier start had done says nothing of this one's speed.

    A total that is not known is 0; one that was passed was an estimate, and says no more.
    """

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def left(self, done: int, total: int, *, now: float | None = None) -> float | None:
        """Seconds until `total`, None while nothing is known; call it with every `done`. now is for a clock's reading."""
        now = time.monotonic() if now is None else now
        if self._first is None:
            self._first = (done, now)
        begun, since = self._first
        return (now - since) / (done - begun) * (total - done) if begun < done <= total else None


def counted(done: int, total: int, unit: str) -> str:
    """How far something is, as `4096/5010 rows`; without a total where that is not known, or was passed."""
    return f"{done}/{total} {unit}" if done <= total else f"{done} {unit}"


def clock(seconds: float | None) -> str:
    """Seconds as 1:23 or 1:02:03; empty for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

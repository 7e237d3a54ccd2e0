"""A worker process of this machine: assignments come in on stdin, a line each, and reports leave on stdout.

`python -m xadapt.workers.process` is started by `LocalPool`. When its stdin ends, whoever started it is gone, or done.
"""

import json
import os
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import TextIO

from xadapt import interruption
from xadapt.workers.reports import Report

# what asks a worker to keep what it has and leave
STOP = "stop"
# seconds that a worker without a parent has to keep what it has
GRACE = 60.0


def main() -> None:
    """Work until there is nothing more to expect, or somebody asks to stop."""
    channel = _channel()

    def send(report: Report) -> None:
        with suppress(OSError):  # nobody reads any more: _listen sees to it
            channel.write(json.dumps(report) + "\n")
            channel.flush()

    assignments: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    with interruption.resumable():
        threading.Thread(target=_listen, args=(assignments,), daemon=True).start()
        # one that was asked to stop by others than its parent makes room for a new one
        while not interruption.requested() and (text := assignments.get()) is not None:
            from xadapt.workers.work import work

            send(work(text, send))


def _channel() -> TextIO:
    """The stdout of the start; what is printed from now on goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _listen(assignments: "queue.SimpleQueue[str | None]") -> None:
    """Pass on what comes in; at its end see that this process ends: at once if it was to leave already."""
    for line in sys.stdin:
        if line.strip() == STOP:
            interruption.request(STOP)
        else:
            assignments.put(line)
    if interruption.requested():
        os._exit(1)
    interruption.request("the end of its parent")
    assignments.put(None)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main()

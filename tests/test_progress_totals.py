"""Progress of what cannot be counted, or was counted too low: nothing goes over its total, no time is below zero."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from xadapt.study.stage import Stage
from xadapt.workers import reports
from xadapt.workers.reports import Telling
from xadapt_cli import progress
from xadapt_cli.pace import Pace
from xadapt_cli.progress import ConsoleReporter

STAGE = Stage("evaluate", {"n": 1}, (), {}, "evaluate panx")


@pytest.mark.parametrize("total", [0, 8192, 5000, 4096])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_total_is_never_passed(total: int, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    out = io.StringIO()
    console = Console(file=out, width=160, force_terminal=terminal, no_color=True)
    with ConsoleReporter(console) as reporter:
        reporter.started(STAGE, 1, 1)
        advance = reporter.evaluated(STAGE, total)
        for _ in range(3):
            advance(2048)
            if reporter._table:
                console.print(reporter._table.render())
    shown = out.getvalue()
    assert [rows for rows in ("2048", "6144") if rows not in shown] == []
    counts = [(int(done), int(of)) for done, of in re.findall(r"(\d+)/(\d+) rows", shown)]
    assert all(0 < done <= of for done, of in counts)
    assert {of for _, of in counts} == ({total} if total else set())
    assert not re.search(r"-\d+ s left|-\d+:\d\d", shown)


def test_no_time_is_left_of_what_cannot_be_counted() -> None:
    pace = Pace()
    assert [pace.left(done, 0, now=done) for done in (10, 20, 30)] == [None, None, None]
    pace = Pace()
    assert [pace.left(done, 20, now=done) for done in (10, 20, 30)] == [None, 0.0, None]


@pytest.mark.parametrize("total", [0, 3, 100])
def test_a_worker_reports_no_oftener_for_not_knowing_the_total(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "PAUSE", 1000.0)
    sent: list[dict[str, Any]] = []
    advance = Telling(sent.append).evaluated(STAGE, total)
    for _ in range(10):
        advance(1)
    rows = [report["rows"] for report in sent if report["event"] == "rows"]
    assert rows == ([1, 2] if total == 3 else [1]), "the first, and the one that completes the total"

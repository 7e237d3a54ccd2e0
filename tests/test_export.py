"""Scores in files: every record comes back, nothing runs in a spreadsheet, and a failed write leaves no trace."""

import csv
from pathlib import Path

import pytest
from test_scorecard import HOSTILE, made_up, made_up_study

from xadapt.analysis.export import visible
from xadapt.analysis.records import Score
from xadapt.analysis.scorecard import Scorecard


def test_csv_round_trip_escapes_formulas(tmp_path: Path) -> None:
    scores = [made_up(setting=f'{start}1,"q"\nline') for start in "=+-@"] + [made_up(setting=HOSTILE)]
    Scorecard(scores).write_csv(tmp_path / "new" / "scores.csv")
    with open(tmp_path / "new" / "scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == [f'\'{s}1,"q"\nline' for s in "=+-@"] + [HOSTILE]
    assert float(rows[0]["value"]) == 50.0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.csv"]


def test_parquet_round_trip(tmp_path: Path) -> None:
    from pyarrow import parquet

    scores = [*made_up_study(seeds=(1, 2)), made_up(setting=HOSTILE, train_samples=None)]
    Scorecard(scores).write_parquet(tmp_path / "scores.parquet")
    back = parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [Score.model_validate(record) for record in back] == scores


def test_failed_write_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        Scorecard([made_up()]).write_csv(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_invisible_characters_become_visible() -> None:
    assert visible("a\x1b[1m\u202e\nb é 中") == r"a\x1b[1m\u202e\nb é 中"

"""Mining against faiss and a plain restatement of BUCC's rules; thresholds, duplicates, both layouts."""

import gc
import weakref
from dataclasses import replace
from itertools import product
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_split
from torch import Tensor

from xadapt.data import Rows, open_source
from xadapt.data.bucc import Mining, mining_columns
from xadapt.data.rows import joined_splits
from xadapt.errors import UserError
from xadapt.evaluation.predictions import PredictionFile
from xadapt.evaluation.zero_shot import Predicted, decoded, score_language
from xadapt.formats import FORMATS, Features
from xadapt.formats import mining as mining_format
from xadapt.formats.mining import Mined, best_threshold, mine, nearest
from xadapt.tasks import get_task

TASK = get_task("bucc2018")


def unit(n: int, seed: int, width: int = 16) -> Tensor:
    drawn = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


@pytest.mark.parametrize(("chunk", "keys"), [(7, 11), (64, 1000), (2048, 16384)])
def test_the_nearest_are_those_of_faiss(chunk: int, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining_format, "CHUNK", chunk)
    monkeypatch.setattr(mining_format, "KEYS", keys)
    queries, known = unit(300, 1), unit(500, 2)
    index = faiss.IndexFlatIP(16)
    index.add(known.numpy())
    cosines, at = index.search(queries.numpy(), 4)
    found = nearest(queries, known, k=4)
    np.testing.assert_array_equal(found[1].numpy(), at)
    np.testing.assert_allclose(found[0].numpy(), cosines, atol=1e-6)


def restated(foreign: np.ndarray, english: np.ndarray, k: int) -> list[tuple[float, int, int]]:
    """The rules in loops: margins of each row's k nearest, the best of them from both sides, greedily."""
    cosines = foreign @ english.T
    near_f = [sorted(range(len(english)), key=lambda j: -cosines[i, j])[:k] for i in range(len(foreign))]
    near_e = [sorted(range(len(foreign)), key=lambda i: -cosines[i, j])[:k] for j in range(len(english))]
    mean_f = [np.mean([cosines[i, j] for j in near_f[i]]) for i in range(len(foreign))]
    mean_e = [np.mean([cosines[i, j] for i in near_e[j]]) for j in range(len(english))]

    def margin(i: int, j: int) -> float:
        return float(cosines[i, j] / ((mean_f[i] + mean_e[j]) / 2))

    candidates = {(i, max(near_f[i], key=lambda j: margin(i, j))) for i in range(len(foreign))}
    candidates |= {(max(near_e[j], key=lambda i: margin(i, j)), j) for j in range(len(english))}
    kept: list[tuple[float, int, int]] = []
    for i, j in sorted(candidates, key=lambda pair: -margin(*pair)):
        if all(i != a and j != b for _, a, b in kept):
            kept.append((margin(i, j), i, j))
    return kept


@pytest.mark.parametrize(("n", "m"), [(60, 80), (80, 60), (3, 50), (1, 1)])
def test_pairs_are_mined_by_the_rules(n: int, m: int) -> None:
    foreign, english = unit(n, 3), unit(m, 4)
    english[: min(n, m) // 2] = torch.nn.functional.normalize(
        foreign[: min(n, m) // 2] + 0.3 * english[: min(n, m) // 2]
    )
    expected = restated(foreign.double().numpy(), english.double().numpy(), k=min(4, n, m))
    found = mine(foreign, english)
    assert [(i, j) for _, i, j in found] == [(i, j) for _, i, j in expected]
    assert [s for s, _, _ in found] == pytest.approx([s for s, _, _ in expected], abs=1e-5)


def test_the_threshold_is_the_best_of_all_cuts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        margins = sorted(rng.random(30).round(3).tolist(), reverse=True)
        pairs = [(f"f{i}", f"e{i}") for i in range(30)]
        gold = [pair for pair in pairs if rng.random() < 0.4] + [("x", "y")]
        threshold = best_threshold(Mined(margins, pairs), gold)

        def f1(cut: float) -> float:
            kept = {p for p, m in zip(pairs, margins, strict=True) if m >= cut}  # noqa: B023
            return 2 * len(kept & set(gold)) / (len(kept) + len(gold))  # noqa: B023

        assert f1(threshold) >= max(f1(cut) for cut in margins) - 1e-9
    assert best_threshold(Mined([1.0], [("a", "b")]), [("a", "c")]) == float("inf")


def sentences(split: str, n: int, paired: int, *, duplicate: bool = False) -> Rows:
    """n sentences a side of which the first `paired` are translations; the last may repeat the first."""
    rows = []
    for side, i in product(("foreign", "english"), range(n)):
        text = f"{split} {side} {0 if duplicate and i == n - 1 else i}"
        rows.append((side, f"{side[0]}{i}", text, f"e{i}" if side == "foreign" and i < paired else ""))
    columns = dict(zip(("side", "id", "text", "gold"), map(list, zip(*rows, strict=True)), strict=True))
    return Rows("bucc2018", "de", split, columns, split, "made up")


def vectors(rows: Rows) -> list[Tensor]:
    """Translations lie close together, everything else anywhere."""
    found = []
    for split, side, text in zip(*(rows.columns[c] for c in ("split", "side", "text")), strict=True):
        number = int(text.rsplit(" ", 1)[1])
        shift = 0 if side == "foreign" or number < 20 else 5000
        found.append(
            unit(1, (10_000 if split == "test" else 0) + number + shift, width=32)[0]
            + (0.001 if side == "english" else 0)
        )
    return [torch.nn.functional.normalize(vector, dim=0) for vector in found]


def test_the_threshold_of_dev_cuts_test() -> None:
    rows = joined_splits(sentences("validation", 40, 20), sentences("test", 60, 20))
    features, found = Features([[]] * len(rows), None, range(len(rows))), vectors(rows)
    result, mined = score_language(TASK, "de", rows, features, found), decoded(TASK, "de", rows, features, found)
    assert result.values == {"f1": 100.0}
    assert result.n == 20
    assert sorted(mined.predictions) == sorted(mined.references)
    assert len(mined.confidence) == len(mined.predictions)


def test_a_repeated_sentence_is_no_candidate_but_its_gold_counts() -> None:
    rows = joined_splits(sentences("validation", 40, 20), sentences("test", 60, 20, duplicate=True))
    features, found = Features([[]] * len(rows), None, range(len(rows))), vectors(rows)
    mined = decoded(TASK, "de", rows, features, found)
    assert "f0" not in dict(mined.predictions)
    assert "f59" not in dict(mined.predictions)
    assert ("f0", "e0") in mined.references
    result = score_language(TASK, "de", rows, features, found)
    assert result.values["f1"] == pytest.approx(100 * 2 * 19 / (19 + 20))


def test_a_sentence_may_have_two_translations() -> None:
    mining = Mining([("f", "a")], [("e1", "x"), ("e2", "y")], [("f", "e1"), ("f", "e2")])
    rows = Rows("bucc2018", "de", "test", mining_columns(mining), "", "")
    assert FORMATS["mining"].references(joined_splits(rows, rows)) == [("f", "e1"), ("f", "e2")]


def test_predictions_keep_every_gold_pair_of_a_sentence(tmp_path: Path) -> None:
    found = Predicted("de", [], [("f1", "e9"), ("f3", "e3")], [("f1", "e1"), ("f1", "e2"), ("f2", "e4")], [1.5, 1.25])
    with PredictionFile(tmp_path / "p.parquet", TASK) as file:
        file.write(found)
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [(row["id"], row["prediction"], row["gold"], row["score"]) for row in rows] == [
        ("f1", "e9", "e1 e2", 1.5), ("f2", "", "e4", None), ("f3", "e3", "", 1.25)
    ]  # fmt: skip
    pairs = {(row["id"], to) for row in rows for to in row["gold"].split()}
    assert pairs == set(found.references), "as many as the score counts"


def split_rows(seed: int) -> tuple[Rows, list[Tensor]]:
    """Rows of dev and test with vectors of their own, in which mining finds some pairs and misses others."""
    rows = joined_splits(sentences("validation", 40, 20), sentences("test", 60, 20))
    noise = unit(len(rows), seed, width=32)
    return rows, list(torch.nn.functional.normalize(torch.stack(vectors(rows)) + 0.7 * noise, dim=1))


def test_evaluations_side_by_side_are_those_alone() -> None:
    features = Features([[]] * 200, None, range(200))
    several = {seed: split_rows(seed) for seed in (11, 12)}
    alone = {seed: decoded(TASK, "de", rows, features, list(found)) for seed, (rows, found) in several.items()}
    assert alone[11] != alone[12]
    form = FORMATS["mining"]
    for seed in (11, 12, 11):
        rows, found = several[seed]
        assert form.decode(found, features, rows) == alone[seed].predictions
        other = split_rows(23 - seed)[1]
        form.decode(other, features, rows)
        assert form.confidence(found, features, rows) == alone[seed].confidence
    # the same list of vectors, but rows of other names
    rows, found = several[11]
    expected = [(f"x{foreign}", f"x{english}") for foreign, english in form.decode(found, features, rows)]
    named = {column: [name and f"x{name}" for name in rows.columns[column]] for column in ("id", "gold")}
    assert form.decode(found, features, replace(rows, columns={**rows.columns, **named})) == expected != []


def test_vectors_are_not_kept_when_an_evaluation_is_over() -> None:
    rows, found = split_rows(13)
    kept = weakref.ref(found[0])
    decoded(TASK, "de", rows, Features([[]] * len(rows), None, range(len(rows))), found)
    del found
    gc.collect()
    assert kept() is None


def test_gold_of_unknown_ids_is_located(tmp_path: Path) -> None:
    write_split(tmp_path / "bucc18" / "bucc18.de" / "test.parquet", [
        {"side": "foreign", "id": "f", "text": "a", "gold": "e9"}, {"side": "english", "id": "e", "text": "b", "gold": ""}
    ])  # fmt: skip
    with pytest.raises(UserError, match=r"test\.parquet, row 0, column 'gold'.*'e9'"):
        open_source(str(tmp_path)).load(TASK, "de", "test")


def test_the_kits_three_files_are_both_splits(tmp_path: Path) -> None:
    folder = tmp_path / "bucc18" / "bucc18.zh"
    folder.mkdir(parents=True)
    for name, columns in {
        "mining_zh": {"id": ["zh-1", "zh-2"], "sentence": ["一", "二"]},
        "mining_en": {"id": ["en-1", "en-2", "en-3"], "sentence": ["three", "one", "two"]},
        "mining_gold": {"source_id": ["zh-1"], "target_id": ["en-2"]},
    }.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    source = open_source(str(tmp_path))
    rows = source.load(TASK, "zh", "test")
    assert rows.columns["gold"] == ["en-2", "", "", "", ""]
    assert rows.columns["side"] == ["foreign"] * 2 + ["english"] * 3
    assert (source.count(TASK, "zh", "test"), source.languages(TASK)) == (5, ["zh"])
    assert source.load(TASK, "zh", "validation").identity == rows.identity
    write_split(folder / "validation.parquet", [{"source_sentence": "一", "target_sentence": "one"}])  # the hub's gold
    assert source.load(TASK, "zh", "validation").identity == rows.identity
    own = [{"side": s, "id": s, "text": s, "gold": "english" if s == "foreign" else ""} for s in ("foreign", "english")]
    write_split(folder / "validation.parquet", own)
    assert source.load(TASK, "zh", "validation").columns["id"] == ["foreign", "english"]
    pq.write_table(pa.table({"source_id": ["en-2"], "target_id": ["zh-1"]}), folder / "mining_gold.parquet")
    with pytest.raises(UserError, match=r"mining_gold\.parquet, row 0.*'en-2'"):
        source.load(TASK, "zh", "test")
    (folder / "mining_en.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"mining_en\.parquet"):
        source.load(TASK, "zh", "test")


def test_the_suite_is_a_mining_problem() -> None:
    source = open_source("embedded")
    rows = joined_splits(*(source.load(TASK, "de", split) for split in ("validation", "test")))  # type: ignore[arg-type]
    gold = FORMATS["mining"].references(rows)
    test = [side for side, split in zip(rows.columns["side"], rows.columns["split"], strict=True) if split == "test"]
    assert 0.2 <= len(gold) / test.count("foreign") <= 0.3


def test_no_sentence_is_in_two_pairs() -> None:
    found = mine(unit(4000, 5), unit(9000, 6))
    for side in (1, 2):
        assert len({pair[side] for pair in found}) == len(found) > 1000
    assert [pair[0] for pair in found] == sorted((pair[0] for pair in found), reverse=True)

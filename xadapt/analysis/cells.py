"""Cells out of scores: means over languages, gains over none, means over tasks."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from xadapt.analysis.records import Score
from xadapt.analysis.table import COLLAPSED, SEEDLESS, UNEVEN, UNPAIRED, Cell, Note

Grid = dict[str, dict[int, Score]]  # language -> seed -> score, of one row, task and metric


def combined(grids: Sequence[Grid]) -> Grid:
    """One score for those of several metrics, their mean, wherever all of them are there."""
    first, *others = grids
    if not others:
        return first
    found: Grid = {}
    for lang, by_seed in first.items():
        for seed, score in by_seed.items():
            values = [score.value, *(grid[lang][seed].value for grid in others if seed in grid.get(lang, {}))]
            if len(values) == len(grids):
                found.setdefault(lang, {})[seed] = score.model_copy(update={"value": fmean(values)})
    return found


def mean_cell(grid: Grid, codes: Sequence[str]) -> Cell | None:
    """The plain mean over those of the languages that the grid has, in points; None if it has none of them."""
    present = [grid[code] for code in codes if code in grid]
    if not present:
        return None
    seeds = {seed for by_seed in present for seed in by_seed}
    whole = [seed for seed in sorted(seeds) if all(seed in by_seed for by_seed in present)]
    scores = [score for by_seed in present for score in by_seed.values()]
    notes = {note for score in scores for note in _notes(score)} | ({UNEVEN} if len(whole) < len(seeds) else set())
    alike = all(len({score.stage for score in by_seed.values()}) == 1 for by_seed in present)
    if shared := alike and len(whole) == len(seeds) > 1:
        notes.add(SEEDLESS)
    value = fmean(fmean(score.value for score in by_seed.values()) for by_seed in present)
    means = {seed: fmean(by_seed[seed].value for by_seed in present) for seed in whole}
    return Cell(value, len(present), len(codes), len(seeds), means, tuple(sorted(notes)), seedless=shared)


def _notes(score: Score) -> Iterator[Note]:
    if score.collapsed:
        yield COLLAPSED
    if score.repeats:
        data = f"{score.intermediate} is {score.task}'s own training data"
        yield Note("†", f"{data}: nothing new to train, the score of none is repeated")
    if score.stand_in:
        yield Note("‖", f"{score.task}: {score.stand_in} rows stand for a test split that the data lacks")
    if score.skipped:
        of = score.skipped + score.n
        yield Note("※", f"{score.task}, {score.language}: {score.skipped} of {of} rows were left out as unusable")
    if score.train_skipped:
        said = f"{score.train_skipped} rows of the trainings behind were left out as unusable"
        yield Note("⊖", f"{score.task}, {score.regime} {score.composition}: {said}")


def gain_cell(grid: Grid, none: Grid, codes: Sequence[str]) -> Cell | None:
    """The gain on the languages, and seeds, both have: means over different ones are not subtracted."""
    common = {seed for found in grid.values() for seed in found}
    common &= {seed for found in none.values() for seed in found}
    if common:
        grid, none = _only(grid, common), _only(none, common)
    shared = [code for code in codes if code in grid and code in none]
    ours, theirs = mean_cell(grid, shared), mean_cell(none, shared)
    if ours is None or theirs is None:
        return None
    paired = {s: ours.by_seed[s] - theirs.by_seed[s] for s in ours.by_seed if s in theirs.by_seed}
    notes = tuple(sorted({*ours.notes, *theirs.notes, *(() if common else (UNPAIRED,))}))
    seeds = min(ours.seeds, theirs.seeds)
    alike = ours.seedless and theirs.seedless
    return Cell(ours.value - theirs.value, len(shared), len(codes), seeds, paired, notes, signed=True, seedless=alike)


def _only(grid: Grid, seeds: set[int]) -> Grid:
    kept = {code: {s: score for s, score in found.items() if s in seeds} for code, found in grid.items()}
    return {code: found for code, found in kept.items() if found}


def mean_of_cells(cells: Sequence[Cell | None]) -> Cell | None:
    """The plain mean of cells, none of which may be missing; its counts are sums over them."""
    present = [cell for cell in cells if cell]
    if not present or len(present) < len(cells):
        return None
    seeds = [s for s in present[0].by_seed if all(s in cell.by_seed for cell in present)]
    return Cell(
        fmean(cell.value for cell in present),
        sum(cell.languages for cell in present),
        sum(cell.expected for cell in present),
        min(cell.seeds for cell in present),
        {seed: fmean(cell.by_seed[seed] for cell in present) for seed in seeds},
        tuple(sorted({note for cell in present for note in cell.notes})),
        signed=present[0].signed,
        seedless=all(cell.seedless for cell in present),
    )

"""BUCC 2018 as XTREME's download keeps it: sentences with ids on either side, and the gold pairs of ids."""

from dataclasses import dataclass
from pathlib import Path

from xadapt.data.checks import At, check_distinct, checked_texts
from xadapt.data.files import read_lines
from xadapt.data.parquet import column_values, read_table
from xadapt.errors import UserError, short, unknown


@dataclass(frozen=True)
class Mining:
    """The sides of one language, as (id, sentence) in the files' order, and the pairs of ids that are translations.

    gold has the language's own id first, and is None where the files have none: XTREME's download removes the
    test split's.
    """

    foreign: list[tuple[str, str]]
    english: list[tuple[str, str]]
    gold: list[tuple[str, str]] | None


def read_bucc(folder: Path, lang: str, split: str) -> Mining:
    """Read `<lang>-en.<split>.{<lang>,en,gold}` of a folder; split is "dev" or "test".

    Raises UserError with file and line for a missing file, another number of columns, an id or a pair that stands
    twice, an empty sentence, and a gold pair of unknown ids.
    """
    stem = f"{lang}-en.{split}"
    foreign, english = (_sentences(folder / f"{stem}.{side}") for side in (lang, "en"))
    gold = folder / f"{stem}.gold"
    pairs = _pairs(gold, foreign, english) if gold.is_file() else None
    return Mining(list(foreign.items()), list(english.items()), pairs)


def mining_files(folder: Path, lang: str) -> list[Path]:
    """The three Parquet files `mining_<lang>`, `mining_en`, `mining_gold` of a folder, or none."""
    files = [folder / f"mining_{side}.parquet" for side in (lang, "en", "gold")]
    return files if all(file.is_file() for file in files) else []


def read_mining_files(files: list[Path]) -> Mining:
    """Read what `mining_files` found: columns id, sentence on either side, source_id, target_id of the gold pairs.

    Raises UserError with file, row and column for what is no text, an id or a pair that stands twice, and a gold pair
    of unknown ids.
    """
    foreign, english = (_columns_of(file, ("id", "sentence")) for file in files[:2])
    gold = _columns_of(files[2], ("source_id", "target_id"))
    for file, side in zip(files, (foreign, english), strict=False):
        check_distinct((name for name, _ in side), "id", _rows_of(file))
    for column, at in (("source_id", 0), ("target_id", 1)):
        known = {name for name, _ in (foreign, english)[at]}
        for row, pair in enumerate(gold):
            if pair[at] not in known:
                raise UserError(
                    f"{files[2]}, row {row}, column '{column}': {files[at]} has no sentence of the id {short(pair[at])}; "
                    "fetch the files again"
                )
    check_distinct((" ".join(pair) for pair in gold), "source_id, target_id", _rows_of(files[2]))
    return Mining(foreign, english, gold)


def _columns_of(file: Path, columns: tuple[str, str]) -> list[tuple[str, str]]:
    table, at = read_table(file), _rows_of(file)
    if missing := set(columns) - set(table.column_names):
        raise unknown("column", min(missing), table.column_names, place=f"{file}, which lacks it")
    if not len(table):
        raise UserError(f"{file} has no rows; fetch it again")
    values = (checked_texts(column_values(table, column, at), column, at) for column in columns)
    return list(zip(*values, strict=True))


def _rows_of(file: Path) -> At:
    return lambda row: f"{file}, row {row}"


def mining_columns(mining: Mining) -> dict[str, list[str]]:
    """One row a sentence, of both sides: side, id, text, and a foreign sentence's gold ids, joined by spaces."""
    gold: dict[str, list[str]] = {}
    for name, to in mining.gold or ():
        gold.setdefault(name, []).append(to)
    rows = [("foreign", name, text, " ".join(gold.get(name, []))) for name, text in mining.foreign]
    rows += [("english", name, text, "") for name, text in mining.english]
    return dict(zip(("side", "id", "text", "gold"), map(list, zip(*rows, strict=True)), strict=True))


def _sentences(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, (name, sentence) in enumerate(_rows(path, "an id, a tab and a sentence"), start=1):
        if name in found:
            raise UserError(f"{path}, line {number}: the id {short(name)} stands twice; remove one of the lines")
        found[name] = sentence
    return found


def _pairs(path: Path, foreign: dict[str, str], english: dict[str, str]) -> list[tuple[str, str]]:
    pairs: dict[tuple[str, str], None] = {}
    for number, pair in enumerate(_rows(path, "two ids with a tab between"), start=1):
        for name, side in zip(pair, (foreign, english), strict=True):
            if name not in side:
                raise UserError(f"{path}, line {number}: no sentence has the id {short(name)}; fetch the files again")
        if pair in pairs:
            raise UserError(
                f"{path}, line {number}: {short(pair[0])} with {short(pair[1])} stands twice; remove one of the lines"
            )
        pairs[pair] = None
    return list(pairs)


def _rows(path: Path, wanted: str) -> list[tuple[str, str]]:
    if not path.is_file():
        raise UserError(f"there is no file {path}; give the folder `bucc2018/` of XTREME's download")
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        first, tab, second = line.partition("\t")
        if not tab or "\t" in second:
            raise UserError(f"{path}, line {number}: {short(line)} is not {wanted}")
        if not first.strip() or not second.strip():
            raise UserError(f"{path}, line {number}: column {2 if first.strip() else 1} is empty; correct the line")
        rows.append((first.strip(), second.strip()))
    return rows

"""Canonical rows: a source's columns under the format's field names, labels as the spec's ids, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xadapt.errors import UserError, unknown
from xadapt.tasks import Task


@dataclass(frozen=True)
class Rows:
    """The rows of one task, language and split.

    columns maps the format's fields (`tasks.spec.FORMAT_FIELDS`) to lists of equal length; labels and tags are
    indices into `task.labels`. identity names the content (it enters stage keys); place is for error messages;
    skipped counts the rows left out since the spec says so; no_answer is the spec's; labels names the ids where
    the spec leaves the labels open.
    """

    task: str
    lang: str
    split: str
    columns: Mapping[str, Sequence[Any]]
    identity: str
    place: str
    skipped: int = 0
    no_answer: bool = False
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, at: slice) -> "Rows":
        """Some of the rows."""
        return replace(self, columns={field: values[at] for field, values in self.columns.items()})

    def relabelled(self, labels: Sequence[str]) -> "Rows":
        """The rows with tags as ids of `labels`; names that are not among them come behind, where no head predicts."""
        names = (*labels, *sorted(set(self.labels) - set(labels)))
        ids = {name: i for i, name in enumerate(names)}
        tags = [[ids[self.labels[tag]] for tag in row] for row in self.columns["tags"]]
        return replace(self, columns={**self.columns, "tags": tags}, labels=names)


def canonical_rows(
    task: Task, lang: str, split: str, raw: Mapping[str, Sequence[Any]], *, identity: str, place: str,
    label_names: Sequence[str] | None = None, limit: int | None = None,
) -> Rows:  # fmt: skip
    """Check a source's columns against the spec and translate labels to the spec's ids; the first `limit` rows.

    raw holds the source's columns; label_names is the source's own id order where it stores one, else the
    spec's `source_labels` is assumed. Raises UserError naming place, row and column for an empty split, a
    missing column, an empty text, misaligned tokens and tags, or a label outside the spec.
    """
    for name in task.source_columns:
        if name not in raw:
            raise unknown("column", name, raw, place=f"the spec of task '{task.name}': {place} lacks it")
    columns = {field: _column(column, raw) for field, column in task.columns.items()}
    columns, skipped = _without_skipped(task, columns, limit)
    if not len(next(iter(columns.values()))):
        raise UserError(f"{place}: the {split} split of task '{task.name}' is empty; give a split with rows")
    names = tuple(label_names or task.source_labels)
    if task.open_labels:
        task = task.model_copy(update={"labels": _labels_found(columns["tags"], names)})
    checked = _CHECKS[task.format](task, columns, names, place)
    labels = task.labels if task.open_labels else ()
    return Rows(task.name, lang, split, checked, identity, place, skipped, task.no_answer, labels)


def _labels_found(rows: Sequence[Any], names: Sequence[str]) -> tuple[str, ...]:
    """The tags that occur, sorted by name; what is no tag is left to the check to refuse."""
    tags = {tag for row in rows if isinstance(row, list) for tag in row if isinstance(tag, str | int)}
    found = {names[tag] if isinstance(tag, int) and 0 <= tag < len(names) else tag for tag in tags}
    return tuple(sorted(tag for tag in found if isinstance(tag, str) and tag.strip()))


def _column(column: str, raw: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """`a`, the field `a.b` of structures, or lists made of `a|b|c`; None where a structure lacks the field."""
    if "|" in column:
        return [list(values) for values in zip(*(_column(name, raw) for name in column.split("|")), strict=True)]
    name, dot, inner = column.partition(".")
    return [value.get(inner) if isinstance(value, dict) else None for value in raw[name]] if dot else raw[name]


def _without_skipped(
    task: Task, columns: dict[str, Sequence[Any]], limit: int | None
) -> tuple[dict[str, Sequence[Any]], int]:
    """The first `limit` rows that the spec keeps, and how many it left out before the last of them."""
    dropped = {
        i for field, values in task.skip.items() for i, raw in enumerate(columns[field]) if _plain(raw) in values
    }
    rows = len(next(iter(columns.values())))
    kept = [i for i in range(rows) if i not in dropped][:limit]
    if len(kept) == rows:
        return columns, 0
    skipped = sum(i < kept[-1] for i in dropped) if limit and kept else len(dropped)
    return {field: [values[i] for i in kept] for field, values in columns.items()}, skipped


def _plain(raw: object) -> object:
    return raw if isinstance(raw, int | str) and not isinstance(raw, bool) else None


def _classification(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    label_column = task.columns["label"]
    ids = _label_ids(task, names)
    texts = {field: _texts(columns[field], task.columns[field], place) for field in columns if field != "label"}
    labels = [
        _label(task, ids, raw, f"{place}, row {i}, column '{label_column}'") for i, raw in enumerate(columns["label"])
    ]
    return {**texts, "label": labels}


def _tagging(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    ids = _label_ids(task, names)
    column = task.columns["tags"]
    tags = []
    for i, (tokens, row_tags) in enumerate(zip(columns["tokens"], columns["tags"], strict=True)):
        if tokens is None or row_tags is None or not len(tokens) or len(tokens) != len(row_tags):
            raise UserError(
                f"{place}, row {i}: {len(tokens or ())} tokens but {len(row_tags or ())} values in '{column}'"
            )
        if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
            raise UserError(f"{place}, row {i}, column '{task.columns['tokens']}': {tokens!r} is not a list of texts")
        tags.append([_label(task, ids, raw, f"{place}, row {i}, column '{column}'") for raw in row_tags])
    return {"tokens": columns["tokens"], "tags": tags}


def _retrieval(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    return {
        field: [text.strip() for text in _texts(columns[field], task.columns[field], place)]
        for field in ("source", "target")
    }


def _span(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    texts = {field: _texts(columns[field], task.columns[field], place) for field in ("id", "context", "question")}
    first: dict[str, int] = {}
    for i, name in enumerate(texts["id"]):
        if first.setdefault(name, i) != i:
            raise UserError(
                f"{place}, row {i}, column '{task.columns['id']}': {name!r} stands in row {first[name]} too"
            )
    answers = [
        _answers(raw, context, f"{place}, row {i}, column '{task.columns['answers']}'")
        for i, (raw, context) in enumerate(zip(columns["answers"], texts["context"], strict=True))
    ]
    if not task.no_answer and [] in answers:
        raise UserError(
            f"{place}, row {answers.index([])}, column '{task.columns['answers']}': no answer, which task '{task.name}' "
            "does not know; remove the row or set no_answer in the spec"
        )
    return {**texts, "answers": answers}


def _answers(raw: object, context: str, place: str) -> list[tuple[str, int]]:
    """SQuAD's answers as (text, first character) pairs; none for a question without an answer."""
    if not (isinstance(raw, dict) and isinstance(raw.get("text"), list) and isinstance(raw.get("answer_start"), list)):
        raise UserError(f"{place}: {raw!r} has no lists `text` and `answer_start`")
    if len(raw["text"]) != len(raw["answer_start"]):
        raise UserError(f"{place}: {len(raw['text'])} texts but {len(raw['answer_start'])} values in answer_start")
    pairs = list(zip(raw["text"], raw["answer_start"], strict=True))
    for text, start in pairs:
        if not (isinstance(text, str) and isinstance(start, int) and context[start : start + len(text)] == text != ""):
            found = context[start : start + len(text or "")] if isinstance(start, int) and isinstance(text, str) else ""
            raise UserError(f"{place}: the answer {text!r} does not stand at {start} of the context, but {found!r}")
    return pairs


def _choice(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    prompts = _texts(columns["prompt"], task.columns["prompt"], place)
    ids, label_column = _label_ids(task, names), task.columns["label"]
    for i, choices in enumerate(columns["choices"]):
        if not isinstance(choices, list) or len(choices) != len(task.labels):
            raise UserError(
                f"{place}, row {i}, column '{task.columns['choices']}': {choices!r} are not {len(task.labels)} texts"
            )
        _texts(choices, task.columns["choices"], f"{place}, row {i}")
    labels = [
        _label(task, ids, raw, f"{place}, row {i}, column '{label_column}'") for i, raw in enumerate(columns["label"])
    ]
    stems = [text or "" for text in columns["stem"]] if "stem" in columns else [""] * len(prompts)
    return {"prompt": prompts, "stem": stems, "choices": columns["choices"], "label": labels}


def _texts(values: Sequence[Any], column: str, place: str) -> Sequence[str]:
    for i, text in enumerate(values):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{place}, row {i}, column '{column}': {text!r} is not a text; correct or remove the row")
    return values


def _label_ids(task: Task, names: Sequence[str]) -> dict[object, int]:
    """Every spelling a source may use, to the spec's id: the name itself, or the source's own integer."""
    ids: dict[object, int] = {name: i for i, name in enumerate(task.labels)}
    ids |= {alias: ids[name] for alias, name in task.aliases.items()}
    for raw, name in enumerate(names):
        if name in ids:
            ids[raw] = ids[name]
    return ids


def _label(task: Task, ids: Mapping[object, int], raw: object, place: str) -> int:
    if isinstance(raw, bool | list | dict) or raw not in ids:
        raise unknown("label", raw, task.labels, place=f"{place} (task '{task.name}')")
    return ids[raw]


def _mining(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    """Sentences of two sides; a column `split` tells the dev split's from the test split's once both are joined."""
    texts = {field: _texts(columns[field], task.columns[field], place) for field in ("id", "text")}
    for i, (side, gold) in enumerate(zip(columns["side"], columns["gold"], strict=True)):
        if side not in ("foreign", "english"):
            raise unknown(
                "side", side, ("foreign", "english"), place=f"{place}, row {i}, column '{task.columns['side']}'"
            )
        if not isinstance(gold, str):
            raise UserError(
                f"{place}, row {i}, column '{task.columns['gold']}': {gold!r} is no id; leave it empty for none"
            )
    first: dict[tuple[str, str], int] = {}
    for i, key in enumerate(zip(columns["side"], texts["id"], strict=True)):
        if first.setdefault(key, i) != i:
            raise UserError(
                f"{place}, row {i}, column '{task.columns['id']}': {key[1]!r} stands in row {first[key]} too"
            )
    english = {name for side, name in first if side == "english"}
    for i, gold in enumerate(columns["gold"]):
        if strange := sorted(set(gold.split()) - english):
            raise UserError(
                f"{place}, row {i}, column '{task.columns['gold']}': no English sentence has the id {strange[0]!r}"
            )
    return {
        "side": columns["side"],
        "id": texts["id"],
        "text": [t.strip() for t in texts["text"]],
        "gold": columns["gold"],
    }


def joined_splits(dev: Rows, test: Rows) -> Rows:
    """The rows of both splits of a mining task as one, under a column `split`."""
    columns = {field: [*dev.columns[field], *test.columns[field]] for field in test.columns}
    columns["split"] = ["validation"] * len(dev) + ["test"] * len(test)
    return replace(test, columns=columns)


_CHECKS = {
    "classification": _classification,
    "tagging": _tagging,
    "span": _span,
    "choice": _choice,
    "retrieval": _retrieval,
    "mining": _mining,
}

"""The Hugging Face hub: Parquet files of a dataset at a commit; never a loading script."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from xadapt.data.parquet import complete_shards, count_rows, read_parquet
from xadapt.data.pieces import read_pieces
from xadapt.data.rows import PIECE, Rows
from xadapt.data.splits import Share, merge, parse_share, shares, stand_in
from xadapt.errors import UserError
from xadapt.tasks import Task
from xadapt.tasks.spec import HubSource as Hub
from xadapt.tasks.spec import Part, Split, fill


class HubSource:
    """Downloads the splits it is asked for into the hub's own cache, and reads them from there."""

    name = "hub"

    def identity(self, task: Task, lang: str, split: Split) -> str:
        if not task.parts_in(lang)[0].hub.dataset:
            where = task.hub.elsewhere or "give the folder that has it, --data FOLDER"
            raise UserError(f"task '{task.name}' lies on no hub: {where}")
        return "+".join(_identity(task, part, lang, split) for part in task.parts_in(lang))

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows:
        identity = self.identity(task, lang, split)
        loaded, counts, used = [], [], []
        for part in task.parts_in(lang):
            files, share = _find(task, part, lang, split)
            used.append((part, share))
            prefix = fill(part.hub.id_prefix, lang)
            loaded.append(
                read_parquet(task, lang, split, files, identity=identity, limit=limit, share=share, id_prefix=prefix)
            )
            start, stop = share.bounds(count_rows(files) if task.more else 0)
            counts.append(stop - start)
        return replace(merge(loaded, counts, limit=limit), stand_in=stand_in(used, split))

    def pieces(
        self, task: Task, lang: str, split: Split, *, limit: int | None = None, size: int = PIECE
    ) -> Iterator[Rows]:
        identity, part = self.identity(task, lang, split), task.parts_in(lang)[0]
        files, share = _find(task, part, lang, split)
        return read_pieces(
            task, lang, split, part, files, identity=identity, limit=limit, size=size, share=share,
            id_prefix=fill(part.hub.id_prefix, lang), load=lambda: self.load(task, lang, split, limit=limit),
        )  # fmt: skip

    def check(self, task: Task, lang: str, split: Split) -> None:
        self.identity(task, lang, split)  # which asks the hub all that it can say of files that are not here yet

    def count(self, task: Task, lang: str, split: Split) -> int | None:
        return None

    def languages(self, task: Task) -> list[str]:
        return list(task.languages)


def _identity(task: Task, part: Part, lang: str, split: Split) -> str:
    hub = part.hub
    name = next(iter(part.splits.get(split, ())), "")
    share = parse_share(name).suffix if name else ""
    return f"hub:{hub.dataset}@{dataset_commit(hub, fetch_names(task))}/{fill(hub.config, lang)}/{split}{share}"


def _find(task: Task, part: Part, lang: str, split: Split) -> tuple[list[Path], Share]:
    """The files of the first of a split's names that the hub has whole, downloaded, and the share of them."""
    hub, wanted = part.hub, shares(part, split)
    commit, config = dataset_commit(hub, fetch_names(task)), fill(hub.config, lang)
    names = [name for share in wanted for name in share.names]
    patterns = [f"{config}/{name}{rest}" for name in names for rest in ("-*.parquet", "/*.parquet")]
    folder = _snapshot(fetch_names(task), hub.dataset, commit, tuple(patterns))
    for share in wanted:
        shards = [complete_shards(folder / config, name) for name in share.names]
        if all(shards):
            if hub.revision is None:
                remember_commit("datasets", hub.dataset, commit)
            return [file for files in shards for file in files], share
    raise UserError(
        f"the hub's '{hub.dataset}' at {commit} has no complete {split} split in config '{config}' "
        f"(looked for {', '.join(names) or 'nothing: the task has no such split'}). {_remedies(fetch_names(task))}"
    )


def dataset_commit(hub: Hub, task: str) -> str:
    """The commit a task's data set is read at: the pinned one, else what the branch is now, else what the cache holds.

    Raises UserError when the hub cannot be reached and nothing is cached.
    """
    try:
        return hub.revision or _branch_commit(hub.dataset, hub.branch)
    except hub_errors() as error:
        raise unreachable("dataset", hub.dataset, error, task=task) from error


@lru_cache(maxsize=64)
def _branch_commit(dataset: str, branch: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(dataset, revision=None if branch == "main" else branch, timeout=5).sha)
    except hub_errors():
        if commit := cached_commit("datasets", dataset):
            return commit
        raise


def cached_commit(kind: str, name: str) -> str | None:
    """The commit of `main` that the hub's cache holds for "datasets" or "models", if any."""
    folder = _cache_folder(kind, name)
    ref = folder / "refs" / "main"
    if ref.is_file():
        return ref.read_text().strip()
    # a download by commit leaves no ref: then the latest is what `main` was
    snapshots = sorted((folder / "snapshots").glob("*"), key=lambda snapshot: snapshot.stat().st_mtime)
    return snapshots[-1].name if snapshots else None


def remember_commit(kind: str, name: str, commit: str) -> None:
    """Note in the hub's cache that `main` was this commit, as a download of `main` does, for when it cannot be reached."""
    ref = _cache_folder(kind, name) / "refs" / "main"
    if not (ref.is_file() and ref.read_text().strip() == commit):
        with suppress(OSError):  # a cache that is read-only serves as it is
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit)


def _cache_folder(kind: str, name: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"{kind}--{name.replace('/', '--')}")


def hub_errors() -> tuple[type[Exception], ...]:
    """What an unreachable hub, a missing repository or a broken download raises."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    return (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError)


def _snapshot(task: str, dataset: str, commit: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(dataset, repo_type="dataset", revision=commit, allow_patterns=list(patterns)))
    except hub_errors() as error:
        raise unreachable("dataset", dataset, error, task=task) from error


def unreachable(kind: str, name: str, error: Exception, *, task: str = "mnli") -> UserError:
    """The one error for a hub that does not answer, with every way on; kind is "dataset" or "model"."""
    endpoint = os.environ.get("HF_ENDPOINT", "the Hugging Face hub")
    reason = (str(error).splitlines() or [""])[0][:160]
    remedies = _remedies(task) if kind == "dataset" else _remedies(task, model=name)
    return UserError(f"cannot get {kind} '{name}' from {endpoint} ({type(error).__name__}: {reason}). {remedies}")


def fetch_names(task: Task) -> str:
    """A task as `xadapt fetch --tasks` takes it; a user's own comes with its file."""
    return f"{task.name} --task-file FILE" if task.own else task.name


def _remedies(task: str, model: str = "xlm-roberta-base") -> str:
    return (
        "Without a network: `--backbone embedded --data embedded`. With what was fetched: `--data DIR --backbone "
        f"DIR/models/{model}`. To fetch both where there is a network: "
        f"`xadapt fetch --tasks {task} --backbone {model} --to DIR`."
    )

"""The Hugging Face hub: Parquet files of a dataset at a commit; never a loading script."""

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from xadapt.data.parquet import complete_shards, read_parquet
from xadapt.data.rows import Rows
from xadapt.errors import UserError
from xadapt.tasks import Task
from xadapt.tasks.spec import Split


class HubSource:
    """Downloads the splits it is asked for into the hub's own cache, and reads them from there."""

    name = "hub"

    def identity(self, task: Task, lang: str, split: Split) -> str:
        commit = dataset_commit(task.hub.dataset, task.hub.revision)
        return f"hub:{task.hub.dataset}@{commit}/{task.hub_config(lang)}/{split}"

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows:
        commit = dataset_commit(task.hub.dataset, task.hub.revision)
        config = task.hub_config(lang)
        names = task.splits.get(split, ())
        folder = _snapshot(task.hub.dataset, commit, tuple(f"{config}/{name}-*.parquet" for name in names))
        for name in names:
            if files := complete_shards(folder / config, name):
                if task.hub.revision is None:
                    remember_commit("datasets", task.hub.dataset, commit)
                return read_parquet(task, lang, split, files, identity=self.identity(task, lang, split), limit=limit)
        raise UserError(
            f"the hub's '{task.hub.dataset}' at {commit} has no complete {split} split in config '{config}' "
            f"(looked for {', '.join(names) or 'nothing: the task has no such split'}). {_remedies(task.hub.dataset)}"
        )

    def count(self, task: Task, lang: str, split: Split) -> int | None:
        return None

    def languages(self, task: Task) -> list[str]:
        return list(task.languages)


@lru_cache(maxsize=64)
def dataset_commit(dataset: str, revision: str | None) -> str:
    """The commit a dataset is read at: the pinned one, else what `main` is now, else what the cache holds.

    Raises UserError when the hub cannot be reached and nothing is cached.
    """
    if revision is not None:
        return revision
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(dataset, timeout=5).sha)
    except hub_errors() as error:
        if commit := cached_commit("datasets", dataset):
            return commit
        raise unreachable("dataset", dataset, error) from error


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


def _snapshot(dataset: str, commit: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(dataset, repo_type="dataset", revision=commit, allow_patterns=list(patterns)))
    except hub_errors() as error:
        raise unreachable("dataset", dataset, error) from error


def unreachable(kind: str, name: str, error: Exception) -> UserError:
    """The one error for a hub that does not answer, with every way on; kind is "dataset" or "model"."""
    endpoint = os.environ.get("HF_ENDPOINT", "the Hugging Face hub")
    reason = (str(error).splitlines() or [""])[0][:160]
    remedies = _remedies(name) if kind == "dataset" else _remedies("nyu-mll/glue", model=name)
    return UserError(f"cannot get {kind} '{name}' from {endpoint} ({type(error).__name__}: {reason}). {remedies}")


def _remedies(dataset: str, model: str = "xlm-roberta-base") -> str:
    return (
        "Without a network: `--backbone embedded --data embedded`. With a mirror folder: `--data DIR` (and a model "
        "folder: `--backbone MODEL`). To fetch one where there is a network: "
        f"`hf download {dataset} --repo-type dataset --local-dir DIR/{dataset}` for data, "
        f"`hf download {model} --local-dir MODEL` for the model."
    )

"""The Hugging Face hub: Parquet files of a dataset at a commit, named by their content; never a loading script."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from xadapt.data.files import named_by
from xadapt.data.hub_record import Listing, Repository
from xadapt.data.listing import moved, place_of, reach, resolve, untold
from xadapt.data.manifest import FileFacts
from xadapt.data.parquet import count_rows, read_parquet, whole_shards
from xadapt.data.pieces import read_pieces
from xadapt.data.rows import PIECE, Rows
from xadapt.data.splits import Share, merge, shares, stand_in
from xadapt.data.transfer import (
    Patience,
    XetTrouble,
    bring,
    discard,
    hub_errors,
    hub_name,
    is_as_stated,
    no_connection,
    transfer_errors,
    without_password,
)
from xadapt.errors import UserError
from xadapt.tasks import Task
from xadapt.tasks.spec import HubSource as Hub
from xadapt.tasks.spec import Part, Split, fill

NO_COMMITS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Found:
    """The files of a split in a listing, and which share of them is meant."""

    repository: Repository
    listing: Listing
    files: Sequence[str]
    share: Share

    @property
    def facts(self) -> dict[str, FileFacts]:
        place = place_of(self.repository, self.listing)
        return {file: self.listing.facts(file, place) for file in self.files}

    @property
    def content(self) -> str:
        """The content's name: of files in LFS what a mirror calls them; one in git is `git:` and its blob's sha1."""
        return named_by([facts.content for facts in self.facts.values()]) + self.share.suffix


class HubSource:
    """Reads from the hub library's cache what it lets that download, every file checked against the hub's listing.

    commits are those that branches are to be read at, by `Repository.key`; with newest, a branch that has none is read at
    what it is now. read_at says at which commits it read.
    """

    name = "hub"

    def __init__(
        self, commits: Mapping[str, str] = NO_COMMITS, *, newest: bool = False, patience: Patience | None = None
    ) -> None:
        self._commits, self._newest, self._patience = commits, newest, patience or Patience()
        self._used: dict[str, tuple[Repository, Listing, set[str]]] = {}

    @property
    def read_at(self) -> dict[str, str]:
        """The commits that were read at, by `Repository.key`."""
        return {key: listing.commit for key, (_, listing, _) in self._used.items()}

    def moved(self) -> list[str]:
        """What it would change to read the given commits' branches at what they are now, where it is anything."""
        used = [self._used[key] for key in self._commits if key in self._used]
        return [note for repository, listing, files in used if (note := moved(repository, listing, files))]

    def identity(self, task: Task, lang: str, split: Split) -> str:
        if not task.parts_in(lang)[0].hub.dataset:
            where = task.hub.elsewhere or "give the folder that has it, --data FOLDER"
            raise UserError(f"task '{task.name}' lies on no hub: {where}")
        found = [self._find(task, part, lang, split) for part in task.parts_in(lang)]
        return "sha256:" + "+".join(each.content for each in found)

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows:
        identity = self.identity(task, lang, split)
        loaded, counts, used = [], [], []
        for part in task.parts_in(lang):
            found = self._find(task, part, lang, split)
            files = self._files(task, found)
            used.append((part, found.share))
            prefix = fill(part.hub.id_prefix, lang)
            loaded.append(
                read_parquet(
                    task, lang, split, files, identity=identity, limit=limit, share=found.share, id_prefix=prefix
                )
            )
            start, stop = found.share.bounds(count_rows(files) if task.more else 0)
            counts.append(stop - start)
        return replace(merge(loaded, counts, limit=limit), stand_in=stand_in(used, split))

    def pieces(
        self, task: Task, lang: str, split: Split, *, limit: int | None = None, size: int = PIECE
    ) -> Iterator[Rows]:
        identity, part = self.identity(task, lang, split), task.parts_in(lang)[0]
        found = self._find(task, part, lang, split)
        return read_pieces(
            task, lang, split, part, self._files(task, found), identity=identity, limit=limit, size=size,
            share=found.share, id_prefix=fill(part.hub.id_prefix, lang),
            load=lambda: self.load(task, lang, split, limit=limit),
        )  # fmt: skip

    def check(self, task: Task, lang: str, split: Split) -> None:
        """Nothing: in making the identity the hub is asked all that it can say of files that are not here yet."""

    def count(self, task: Task, lang: str, split: Split) -> int | None:
        try:
            counts = [self._count(task, part, lang, split) for part in task.parts_in(lang)]
        except (OSError, ValueError):  # said in full where the rows are read
            return None
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def languages(self, task: Task) -> list[str]:
        return list(task.languages)

    def settle(self, task: Task, part: Part) -> tuple[Repository, Listing]:
        """One of a task's data sets, and its files at the commit that it is read at from now on; UserError if unknown."""
        repository = repository_of(part.hub)
        if repository.key not in self._used:
            try:
                listing = resolve(repository, self._commits, self._patience, newest=self._newest)
            except hub_errors() as error:
                raise unreachable("dataset", part.hub.dataset, error, task=fetch_names(task)) from error
            self._used[repository.key] = (repository, listing, set())
        return self._used[repository.key][:2]

    def _count(self, task: Task, part: Part, lang: str, split: Split) -> int | None:
        """The rows of a split by the files' own ends where they are here, else by the repository's card."""
        if part.hub.id_prefix:  # which rows are the language's only their ids say
            return None
        found = self._find(task, part, lang, split)
        cached = [_cached(found, file) for file in found.files]
        there = [path for path in cached if path]
        if len(there) == len(cached):
            rows: int | None = count_rows(there)
        else:
            rows = _stated_rows(found.listing, fill(part.hub.config, lang), found.share.names)
        if rows is None:
            return None
        start, stop = found.share.bounds(rows)
        return stop - start

    def _find(self, task: Task, part: Part, lang: str, split: Split) -> Found:
        """The files of the first of a split's names that the hub has whole."""
        repository, listing = self.settle(task, part)
        place = place_of(repository, listing)
        config, wanted = fill(part.hub.config, lang), shares(part, split)
        files, share = whole_split(config, wanted, listing.files, place)
        if share is None:
            names = [name for each in wanted for name in each.names]
            raise UserError(
                f"{place} has no complete {split} split in config '{config}' (looked for "
                f"{', '.join(names) or 'nothing: the task has no such split'}). {_remedies(fetch_names(task))}"
            )
        self._used[repository.key][2].update(files)
        return Found(repository, listing, files, share)

    def _files(self, task: Task, found: Found) -> list[Path]:
        try:
            return bring_all(found.repository, found.listing, found.files, self._patience)
        except transfer_errors() as error:
            raise unreachable("dataset", found.repository.name, error, task=fetch_names(task)) from error


def repository_of(hub: Hub) -> Repository:
    """A spec's data set as a repository of the hub."""
    return Repository(
        kind="dataset", name=hub.dataset, revision=hub.revision, branch=hub.branch, licence=hub.licence
    )  # fmt: skip


def whole_split(
    config: str, wanted: Sequence[Share], names: Collection[str], place: str
) -> tuple[list[str], Share | None]:
    """The files of the first of a split's shares that is whole among a repository's, and the share; else none.

    config is the folder they lie in, place says whose names they are. Raises UserError for a split that is there whole
    more than once.
    """
    folder = f"{config}/"
    inside = {name.removeprefix(folder) for name in names if name.startswith(folder)}
    for share in wanted:
        found = [whole_shards(inside, name, f"{place}, {folder}") for name in share.names]
        if all(found):
            return [folder + file for files in found for file in files], share
    return [], None


def bring_all(repository: Repository, listing: Listing, files: Sequence[str], patience: Patience) -> list[Path]:
    """Files of a listing from the hub library's cache, whole and checked, downloaded where they are not.

    Nothing is asked where all are there. Raises what `transfer.bring` does.
    """
    place, paths = place_of(repository, listing), []
    for file in files:
        facts = listing.facts(file, place)
        path = _library_path(repository, listing.commit, file)
        if path is None or not is_as_stated(path, facts):
            try:
                reach(repository, listing.commit, patience)
                if path is not None:
                    discard(path)
                path = bring(
                    repository.kind, repository.name, listing.commit, file, facts, folder=None, patience=patience,
                    told=untold,
                )  # fmt: skip
            except Exception as error:
                error.add_note(f"{file} of ")
                raise
        paths.append(path)
    return paths


def _cached(found: Found, file: str) -> Path | None:
    return _library_path(found.repository, found.listing.commit, file)


def _library_path(repository: Repository, commit: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository.name, file, revision=commit, repo_type=repository.kind)
    return Path(path) if isinstance(path, str) else None


def _stated_rows(listing: Listing, config: str, names: Sequence[str]) -> int | None:
    """What a repository's card says of some splits; a card of one config may call that by another name."""
    configs = {key.rpartition("/")[0] for key in listing.rows}
    of = config if config in configs else next(iter(configs)) if len(configs) == 1 else ""
    counts = [listing.rows.get(f"{of}/{name}") for name in names]
    return sum(count for count in counts if count is not None) if None not in counts else None


def unreachable(kind: str, name: str, error: Exception, *, task: str = "mnli") -> UserError:
    """The one error for a hub that does not serve, with every way on; kind is "dataset" or "model"."""
    remedies = _remedies(task) if kind == "dataset" else _remedies(task, model=name)
    what = "".join(getattr(error, "__notes__", ()))  # the file's name
    return UserError(
        f"cannot get {what}{kind} '{name}' from {hub_name()} ({type(error).__name__}: {reason(error)}). {remedies}"
    )


def reason(error: Exception) -> str:
    """An error of the hub's in a line, without the secrets of signed addresses, and what helps against it alone."""
    if no_connection(error):
        return "it cannot be reached"
    text = without_password((str(error).splitlines() or [""])[0].partition("?")[0])[:160]
    if isinstance(error, XetTrouble):
        text += "; with HF_HUB_DISABLE_XET=1 in the environment the same command goes on over plain HTTP"
    return text


def fetch_names(task: Task) -> str:
    """A task as `xadapt fetch --tasks` takes it; a user's own comes with its file."""
    return f"{task.name} --task-file FILE" if task.own else task.name


def _remedies(task: str, model: str = "xlm-roberta-base") -> str:
    return (
        "Without a network: `--backbone embedded --data embedded`. With what was fetched: `--data DIR --backbone "
        f"DIR/models/{model}`. To fetch both where there is a network: "
        f"`xadapt fetch --tasks {task} --backbone {model} --to DIR`."
    )

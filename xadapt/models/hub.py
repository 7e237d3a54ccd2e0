"""An encoder of the Hugging Face hub: which of its files are read, what they are by content, and where they lie."""

import shutil
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from xadapt.data.files import file_hash
from xadapt.data.hub import bring_all, unreachable
from xadapt.data.hub_record import Listing, Repository
from xadapt.data.listing import place_of, resolve
from xadapt.data.transfer import Patience, hub_errors, transfer_errors
from xadapt.errors import UserError
from xadapt.models.encoder_files import (
    ADDED,
    ALWAYS,
    CONFIG,
    INDEX,
    PIECES,
    SETTINGS,
    TEMPLATES,
    TOKENIZER,
    WEIGHTS,
    opened_files,
)


def repository_of(name: str) -> Repository:
    """A hub id as a repository of the hub."""
    return Repository(kind="model", name=name)


def model_listing(name: str, commits: Mapping[str, str], *, newest: bool = False) -> Listing:
    """The files of a hub model at its kept commit, else at what `main` was first, or is; UserError if that cannot be told."""
    try:
        return resolve(repository_of(name), commits, Patience(), newest=newest)
    except hub_errors() as error:
        raise unreachable("model", name, error) from error


def opened_names(name: str, listing: Listing) -> list[str]:
    """The files of a hub model that are opened, told as `encoder_files` tells those of a folder, before weights are here.

    Raises UserError if it is no XLM-R in safetensors, or cannot be reached.
    """
    model_files(listing.files, place_of(repository_of(name), listing))
    naming = [file for file in (SETTINGS, INDEX) if file in listing.files]
    with TemporaryDirectory(prefix="xadapt-") as folder:
        root = Path(folder).resolve()
        for file in listing.files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).touch()
        for file, path in zip(naming, _brought(name, listing, naming), strict=True):
            shutil.copyfile(path, root / file)
        return [file.relative_to(root).as_posix() for file in opened_files(root)]


def content_hashes(name: str, listing: Listing) -> dict[str, str]:
    """The sha256 of every file that is opened, by name: the listing's of weights, those of small files once they are here.

    The hub states no sha256 of what lies in git, config and mostly tokenizer, which are downloaded for it. Raises
    UserError as `opened_names` does.
    """
    place = place_of(repository_of(name), listing)
    facts = {file: listing.facts(file, place) for file in opened_names(name, listing)}
    small = [file for file, stated in facts.items() if not stated.sha256]
    hashes = {file: stated.sha256 for file, stated in facts.items() if stated.sha256}
    return hashes | dict(zip(small, map(file_hash, _brought(name, listing, small)), strict=True))


def model_snapshot(name: str, listing: Listing) -> Path:
    """The folder of the hub library's cache with the files that are opened, all whole; UserError as `opened_names`."""
    files = opened_names(name, listing)
    return _brought(name, listing, files)[files.index(CONFIG)].parent


def model_files(names: Collection[str], place: str) -> list[str]:
    """The files, among a repository's names, that may be opened of an XLM-R in safetensors; UserError if it is none."""
    found = sorted(name for name in names if _may_be_opened(name))
    if WEIGHTS in found:  # which is opened where there are shards too
        found = [name for name in found if name == WEIGHTS or not name.endswith((".safetensors", INDEX))]
    if CONFIG not in found:
        raise UserError(f"{place} has no config.json: it is no model; give an XLM-R's hub id, such as xlm-roberta-base")
    if not any(name.endswith(".safetensors") for name in found):
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        shown = f" (it has {', '.join(pickled[:3])})" if pickled else ""
        raise UserError(
            f"{place} has no model.safetensors{shown}, and pickled weights are never fetched or opened; give a model that "
            "has safetensors, such as xlm-roberta-base"
        )
    if not {TOKENIZER, PIECES} & set(found):
        raise UserError(f"{place} has no tokenizer.json; give a model with its tokenizer, such as xlm-roberta-base")
    return found


def _may_be_opened(name: str) -> bool:
    """Whether a file has a name that is opened where it is there, or that an index or the tokenizer's settings may give."""
    if "/" in name:
        return fnmatchcase(name, TEMPLATES)
    return name in (*ALWAYS, ADDED, INDEX) or fnmatchcase(name, "*.safetensors") or fnmatchcase(name, "tokenizer*.json")


def _brought(name: str, listing: Listing, files: list[str]) -> list[Path]:
    try:
        return bring_all(repository_of(name), listing, files, Patience())
    except transfer_errors() as error:
        raise unreachable("model", name, error) from error

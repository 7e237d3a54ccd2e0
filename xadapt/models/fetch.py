"""A backbone, fetched from the hub into a folder that `--backbone` reads without a network."""

import re
from collections.abc import Collection
from pathlib import Path

from xadapt.data.hub_record import Repository
from xadapt.data.manifest import Manifest
from xadapt.data.snapshot import Watch, fetch_snapshot, verify_snapshot
from xadapt.data.transfer import Patience
from xadapt.errors import UserError
from xadapt.models.hub import model_files
from xadapt.models.identity import check_config, check_folder


def model_folder(root: Path, backbone: str) -> Path:
    """Where a hub id's files lie below a mirror: `<root>/models/<id>`; UserError for what is no hub id."""
    if backbone == "embedded":
        raise UserError("--backbone 'embedded' needs no fetching: leave --backbone out, and give it where you train")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", backbone, re.ASCII) or ".." in backbone:
        raise UserError(f"--backbone '{backbone}' is no hub id: give `name` or `owner/name`, such as xlm-roberta-base")
    return root / "models" / backbone


def fetch_backbone(
    root: Path, backbone: str, *, watch: Watch, patience: Patience | None = None
) -> tuple[Path, Manifest]:
    """Fetch config, tokenizer and safetensors of a hub id, never pickled weights; the folder and its manifest.

    Raises UserError as `snapshot.fetch_snapshot` does, and for a repository that is no XLM-R in safetensors.
    """
    folder, repository = model_folder(root, backbone), Repository(kind="model", name=backbone)
    fetch_snapshot(repository, folder, _config, patience or Patience(), watch)
    check_config(folder)  # before a gigabyte of another model comes
    manifest = fetch_snapshot(repository, folder, model_files, patience or Patience(), watch)
    return check_folder(folder), manifest


def verify_backbone(root: Path, backbone: str) -> tuple[Path, Manifest]:
    """Hash what was fetched again, without a network; UserError names what is missing or damaged."""
    folder = model_folder(root, backbone)
    manifest = verify_snapshot(Repository(kind="model", name=backbone), folder, model_files)
    return check_folder(folder), manifest


def _config(names: Collection[str], place: str) -> list[str]:
    return [name for name in model_files(names, place) if name == "config.json"]

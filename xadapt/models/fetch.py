"""A backbone, fetched from the hub into a folder that `--backbone` reads without a network."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

from xadapt.data.download import Patience
from xadapt.data.manifest import Manifest
from xadapt.data.snapshot import Repository, Watch, fetch_snapshot, verify_snapshot
from xadapt.errors import UserError
from xadapt.models.identity import MODEL_FILES, TOKENIZER_FILES, check_config, check_folder


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
    folder, repository, patience = model_folder(root, backbone), Repository("model", backbone), patience or Patience()
    fetch_snapshot(repository, folder, _config, patience, watch)
    check_config(folder)  # before a gigabyte of another model comes
    manifest = fetch_snapshot(repository, folder, _files, patience, watch)
    return check_folder(folder), manifest


def verify_backbone(root: Path, backbone: str) -> tuple[Path, Manifest]:
    """Hash what was fetched again, without a network; UserError names what is missing or damaged."""
    folder = model_folder(root, backbone)
    manifest = verify_snapshot(Repository("model", backbone), folder, _files)
    return check_folder(folder), manifest


def _config(names: Collection[str], place: str) -> list[str]:
    return [name for name in _files(names, place) if name == "config.json"]


def _files(names: Collection[str], place: str) -> list[str]:
    wanted = (*TOKENIZER_FILES, *MODEL_FILES)
    found = sorted(name for name in names if "/" not in name and any(fnmatchcase(name, each) for each in wanted))
    if "config.json" not in found:
        raise UserError(f"{place} has no config.json: it is no model; give an XLM-R's hub id, such as xlm-roberta-base")
    if not any(name.endswith(".safetensors") for name in found):
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        shown = f" (it has {', '.join(pickled[:3])})" if pickled else ""
        raise UserError(
            f"{place} has no model.safetensors{shown}, and pickled weights are never fetched or opened; give a model that "
            "has safetensors, such as xlm-roberta-base"
        )
    if not {"tokenizer.json", "sentencepiece.bpe.model"} & set(found):
        raise UserError(f"{place} has no tokenizer.json; give a model with its tokenizer, such as xlm-roberta-base")
    return found

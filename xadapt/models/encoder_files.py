"""Which files of an encoder's folder are opened: they identify it, and no other is read; torch-free."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xadapt.data.manifest import first_unsafe
from xadapt.errors import UserError, short

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, PIECES, SETTINGS = "tokenizer.json", "sentencepiece.bpe.model", "tokenizer_config.json"
ADDED = "added_tokens.json"
# opened where they are there; the last holds templates of chats, which change no text of ours
ALWAYS = (CONFIG, TOKENIZER, PIECES, SETTINGS, "special_tokens_map.json", "chat_template.jinja")
TEMPLATES = "additional_chat_templates/*.jinja"


def opened_files(folder: Path) -> list[Path]:
    """Every file of the folder that config, weights and tokenizer are loaded from, sorted.

    Raises UserError for a folder without weights, and for files that name others which are none of the folder.
    """
    shards = weight_files(folder)
    names = {*ALWAYS, *(file.name for file in shards), *(INDEX for _ in shards[:1] if shards != [folder / WEIGHTS])}
    if "added_tokens_decoder" not in (settings := _settings(folder)):
        names.add(ADDED)
    found = {folder / name for name in names if (folder / name).is_file()}
    return sorted({*found, *folder.glob(TEMPLATES), *_named_tokenizers(folder, settings)})


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or else the shards that its index names; UserError if there is neither, or a shard is no such file."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise UserError(f"'{folder}' has no {WEIGHTS} (pickled weights are never opened)")
    return sorted({_shard(folder, name) for name in shard_of_tensors(folder).values()})


def shard_of_tensors(folder: Path) -> Mapping[str, str]:
    """The name of the shard that the index has each tensor in; UserError for an index that is none."""
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise UserError(f"{folder / INDEX}: weight_map {short(shards)} names no shards; save the model again")
    return shards


def tokenizer_arguments(folder: Path) -> dict[str, str]:
    """What the tokenizer's loader is told, so that it takes files from the folder where its settings name some.

    By itself it looks for them in the working directory, and takes any tokenizer.model before the pieces.
    """
    settings = _settings(folder)
    if isinstance(name := settings.get("tokenizer_file"), str):
        return {"tokenizer_file": str(_named(folder, name, "tokenizer_file"))}
    if (folder / TOKENIZER).is_file():
        return {}
    return {"vocab_file": str(_named(folder, settings.get("vocab_file") or PIECES, "vocab_file"))}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; UserError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {short(content)} instead of an object; save the model again")
    return content


def _settings(folder: Path) -> dict[str, Any]:
    return read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}


def _named_tokenizers(folder: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """The tokenizer's files that have no name of their own; of those for several versions of the library, all."""
    yield from map(Path, tokenizer_arguments(folder).values())
    if not isinstance(names := settings.get("fast_tokenizer_files") or [], list):
        raise UserError(
            f"{folder / SETTINGS}: fast_tokenizer_files {short(names)} is no list; save the tokenizer again"
        )
    for name in names:
        yield _named(folder, name, "fast_tokenizer_files")


def _shard(folder: Path, name: str) -> Path:
    if not name.endswith(".safetensors") or "/" in name:
        raise UserError(
            f"{folder / INDEX} names the shard {short(name)}, which is no *.safetensors of this folder; save the model "
            "again with safe_serialization=True (nothing else is ever opened)"
        )
    return _inside(folder, name, f"{folder / INDEX} names the shard")


def _named(folder: Path, name: Any, key: str) -> Path:
    return _inside(folder, name, f"{folder / SETTINGS}: {key} names")


def _inside(folder: Path, name: Any, what: str) -> Path:
    """A file of the folder that another one names; it may be a link within, or of the hub's cache to its own blobs."""
    if not isinstance(name, str) or first_unsafe([name]) is not None:
        raise UserError(f"{what} {short(name)}, which is no file of this folder; put it there and name it plainly")
    if not (path := folder / name).is_file():
        raise UserError(f"{what} {short(name)}, which is not there; add it, or save model and tokenizer again")
    home = folder.resolve()
    roots = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(path.resolve().is_relative_to(root) for root in roots):
        raise UserError(f"{what} {short(name)}, a link to {path.resolve()}; put the file itself into the folder")
    return path

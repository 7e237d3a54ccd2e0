"""An encoder's folder: whatever is opened is hashed, it lies in the folder, and its weights are all there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import refused
from fingerprints import digest
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import XLMRobertaForMaskedLM, XLMRobertaModel

from xadapt.errors import UserError
from xadapt.models.backbone import Backbone, load_encoder, start_language_head
from xadapt.models.encoder_files import INDEX, SETTINGS, WEIGHTS, opened_files
from xadapt.models.heads import MaskedLanguageHead
from xadapt.models.identity import backbone_identity, check_folder, old_folder_identity

Tensors = dict[str, Tensor]
LAST = "encoder.layer.1.output.dense.weight"
# what each ordinary kind of folder was called before, for results in stores are called after it
ORDINARY = {"plain", "sharded"}


@pytest.fixture
def folder(tiny_backbone: Path, tmp_path: Path) -> Path:
    """A copy of the tiny encoder, to be changed."""
    return Path(shutil.copytree(tiny_backbone, tmp_path / "encoder"))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> Tensors:
    tensors = change(load_file(folder / WEIGHTS))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return tensors


def edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | values))


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(names)}


def shard(folder: Path, names: tuple[str, str] = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")) -> None:  # fmt: skip
    """The weights in two files, with their index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    half = len(tensors) // 2
    parts = [dict(list(tensors.items())[:half]), dict(list(tensors.items())[half:])]
    for name, part in zip(names, parts, strict=True):
        save_file(part, folder / name, metadata={"format": "pt"})
    index = {name: file for file, part in zip(names, parts, strict=True) for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))


# ---- the weights


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda _: {"foreign": torch.ones(2)}, ("embeddings.LayerNorm.bias", "37")),
        (without(LAST), (LAST, "1 tensors")),
        (without("encoder.layer.1."), ("encoder.layer.1.attention.output.LayerNorm.bias", "16")),
        (prefixed("bert"), ("embeddings.LayerNorm.bias", "37")),
        (lambda tensors: {**tensors, LAST: tensors[LAST][:, :3].contiguous()}, (LAST, "shapes")),
        (lambda tensors: {**tensors, LAST.replace("1", "2"): tensors[LAST].clone()}, (LAST.replace("1", "2"), "1 tensors")),
        (lambda tensors: {**tensors, "classifier.dense.weight": torch.ones(2)}, ("classifier.dense.weight",)),
    ],
    ids=["foreign", "tensor", "layer", "prefix", "shape", "extra layer", "head of a task"],
)  # fmt: skip
def test_an_encoder_without_its_weights_never_trains(
    change: Callable[[Tensors], Tensors], named: tuple[str, ...], folder: Path
) -> None:
    rewrite(folder, change)
    refused(lambda: load_encoder(folder), str(folder / WEIGHTS), *named)


def test_a_config_of_more_layers_than_there_are_weights_is_refused(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=3)
    refused(lambda: load_encoder(folder), str(folder), "encoder.layer.2.attention.output.LayerNorm.bias")


def test_damaged_weights_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])
    refused(lambda: load_encoder(folder), str(folder / WEIGHTS))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{}"), ("tokenizer.json", "\x00"), (SETTINGS, '{"fast_tokenizer_files": 5}'),
        (SETTINGS, '{"tokenizer_class": "Foo"}'), (SETTINGS, '{"added_tokens_decoder": 5}'),
        ("config.json", '{"vocab_size": null}'), ("config.json", '{"hidden_act": "foo"}'),
        ("config.json", '{"num_attention_heads": 7}'), ("config.json", '{"quantization_config": {"quant_method": "awq"}}'),
    ],
)  # fmt: skip
def test_damaged_settings_are_refused_by_the_folders_name(folder: Path, file: str, content: str) -> None:
    """Whatever they lead the library to."""
    if content.startswith("{") and content != "{}":
        edit(folder / file, **json.loads(content))
    else:
        (folder / file).write_text(content)
    with pytest.raises(UserError, match=re.escape(str(folder))):
        everything_of(folder)


def everything_of(folder: Path) -> None:
    check_folder(folder)
    assert Backbone(str(folder)).tokenizer
    load_encoder(folder)


@pytest.mark.parametrize(
    "change",
    [
        prefixed("roberta"),
        lambda tensors: {**tensors, "pooler.dense.weight": torch.ones(2), "lm_head.decoder.bias": torch.ones(3)},
        lambda tensors: {**tensors, "embeddings.position_ids": torch.arange(514)[None]},
        lambda tensors: {name.replace("LayerNorm.weight", "LayerNorm.gamma"): of for name, of in tensors.items()},
    ],
    ids=["prefix", "heads", "position ids", "old names"],
)
def test_the_same_weights_written_otherwise_make_the_same_encoder(
    change: Callable[[Tensors], Tensors], folder: Path, tiny_backbone: Path
) -> None:
    rewrite(folder, change)
    assert digest(load_encoder(folder).state_dict()) == digest(load_encoder(tiny_backbone).state_dict())


def test_shards_make_the_encoder_that_the_library_makes(folder: Path, tiny_backbone: Path) -> None:
    shard(folder)
    theirs = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False)
    assert digest(load_encoder(folder).state_dict()) == digest(theirs.state_dict())
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(lambda: load_encoder(folder), str(folder / INDEX), "model-00002-of-00002.safetensors")


def test_half_precision_is_read_as_the_library_reads_it(folder: Path) -> None:
    rewrite(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    theirs = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False)
    encoder = load_encoder(folder)
    assert digest(encoder.state_dict()) == digest(theirs.state_dict())
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_a_masked_language_model_gives_its_encoder_and_its_head(folder: Path) -> None:
    torch.manual_seed(1)
    whole = XLMRobertaForMaskedLM(Backbone(str(folder)).config)
    torch.nn.init.normal_(whole.lm_head.bias)
    whole.save_pretrained(folder)
    encoder, head = load_encoder(folder), MaskedLanguageHead(32)
    assert digest(encoder.state_dict()) == digest(whole.roberta.state_dict())
    start_language_head(head, encoder, folder)
    assert digest(head.state_dict()) == digest({name: whole.lm_head.state_dict()[name] for name in head.state_dict()})
    rewrite(folder, lambda of: {name.replace("lm_head.bias", "lm_head.decoder.bias"): of[name] for name in of})
    other = MaskedLanguageHead(32)
    start_language_head(other, encoder, folder)
    assert digest(other.state_dict()) == digest(head.state_dict())
    rewrite(folder, without("lm_head.dense"))
    refused(lambda: start_language_head(head, encoder, folder), str(folder), "lm_head.dense.bias", "2 tensors")


def test_a_head_in_a_file_that_is_not_hashed_is_not_read(folder: Path) -> None:
    encoder, head = load_encoder(folder), MaskedLanguageHead(32)
    start_language_head(head, encoder, folder)
    before = digest(head.state_dict())
    save_file({f"lm_head.{name}": of + 1 for name, of in head.state_dict().items()}, folder / "other.safetensors")
    start_language_head(head, encoder, folder)
    assert digest(head.state_dict()) == before


# ---- what identifies a folder


def legacy(folder: Path) -> None:
    """A tokenizer as it was saved by older versions: what is added stands in a file of its own."""
    settings = json.loads((folder / SETTINGS).read_text())
    del settings["added_tokens_decoder"]
    (folder / SETTINGS).write_text(json.dumps(settings))
    (folder / "added_tokens.json").write_text('{"<new>": 500}')


def versioned(folder: Path) -> None:
    legacy(folder)
    shutil.copy(folder / "tokenizer.json", folder / "tokenizer.4.0.0.json")
    edit(folder / SETTINGS, fast_tokenizer_files=["tokenizer.4.0.0.json", "tokenizer.json"])


def named(folder: Path) -> None:
    shutil.copy(folder / "tokenizer.json", folder / "mine.json")
    edit(folder / SETTINGS, tokenizer_file="mine.json")


def with_others(folder: Path) -> None:
    """Files beside, some of which the library opens by itself."""
    (folder / "chat_template.jinja").write_text("x")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("x")
    edit(folder / "adapter_config.json", base_model_name_or_path="/nowhere", peft_type="LORA")
    edit(folder / "generation_config.json", transformers_version="4.0.0")
    for name in ("tokenizer.model", "vocab.txt", "README.md", "pytorch_model.bin", "model-00001-of-00001.safetensors"):
        (folder / name).write_bytes(b"x")


KINDS: dict[str, Callable[[Path], object]] = {
    "plain": lambda folder: None,
    "sharded": shard,
    "oddly sharded": lambda folder: shard(folder, ("a.safetensors", "b.safetensors")),
    "whole beside shards": lambda folder: (folder / INDEX).write_text("{}"),
    "legacy": legacy,
    "versioned": versioned,
    "named": named,
    "others": with_others,
}
LOAD = """
import json, os, sys
opened = set()
def note(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        opened.add(os.path.realpath(os.fsdecode(args[0])))
from xadapt.models.backbone import Backbone, start_language_head
from xadapt.models.heads import MaskedLanguageHead
sys.addaudithook(note)
for name in sys.argv[1:]:
    backbone = Backbone(name)
    encoder = backbone.encoder()
    backbone.tokenizer
    start_language_head(MaskedLanguageHead(32), encoder, backbone.folder)
print(json.dumps(sorted(opened)))
"""


def test_only_what_is_hashed_is_opened(tiny_backbone: Path, tmp_path: Path) -> None:
    """Opens of Python are seen by a hook; safetensors and tokenizers open theirs beyond it: see the next test."""
    folders = [Path(shutil.copytree(tiny_backbone, tmp_path / kind)) for kind in KINDS]
    for folder in folders:
        KINDS[folder.name](folder)
    done = subprocess.run([sys.executable, "-c", LOAD, *folders], capture_output=True, text=True, check=True)
    opened = {Path(path) for path in json.loads(done.stdout) if tmp_path.resolve() in Path(path).parents}
    assert {folder.resolve() / "config.json" for folder in folders} <= opened
    assert opened <= {file.resolve() for folder in folders for file in opened_files(folder)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_the_hashed_files_alone_is_the_same(kind: str, folder: Path, tmp_path: Path) -> None:
    KINDS[kind](folder)
    alone = tmp_path / "alone"
    for file in opened_files(folder):
        (target := alone / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    backbone, other = Backbone(str(folder)), Backbone(str(alone))
    assert other.identity == backbone.identity
    assert digest(other.encoder().state_dict()) == digest(backbone.encoder().state_dict())
    assert other.tokenizer.backend_tokenizer.to_str() == backbone.tokenizer.backend_tokenizer.to_str()
    assert other.tokenizer.special_tokens_map == backbone.tokenizer.special_tokens_map


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_what_is_opened_changes_the_identity_and_no_other_does(kind: str, folder: Path) -> None:
    KINDS[kind](folder)
    before, hashed = backbone_identity(str(folder)), set(opened_files(folder))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert (backbone_identity(str(folder)) != before) == (path in hashed), path.name
        path.write_bytes(content)
    assert backbone_identity(str(folder)) == before


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_folders_are_called_as_ever(kind: str, folder: Path) -> None:
    KINDS[kind](folder)
    assert (old_folder_identity(folder) == backbone_identity(str(folder))) == (kind in ORDINARY)


def test_the_old_identity_of_a_folder_is_what_stores_have(tmp_path: Path) -> None:
    """Files of fixed content; the expected hash was computed by the version before."""
    contents = {
        "config.json": '{"model_type": "xlm-roberta"}', "model.safetensors": "w", "model-1.safetensors": "s",
        "model.safetensors.index.json": "{}", "tokenizer.json": "t", "tokenizer_config.json": "{}",
        "special_tokens_map.json": "{}", "sentencepiece.bpe.model": "p", "added_tokens.json": "{}",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    assert old_folder_identity(tmp_path) == "sha256:ddf3f1aedbeb34fdd6cc9049529af057427fa2232c61caf514fc763016cce63d"


def test_the_tokenizer_that_the_settings_name_is_the_one_that_is_taken(folder: Path, tmp_path: Path) -> None:
    """Not one of that name in the working directory, where the library looks."""
    named(folder)
    text = (folder / "mine.json").read_text().replace('"<unk>"', '"<UNK>"')
    (folder / "mine.json").write_text(text)
    os.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("{")
    assert "<UNK>" in Backbone(str(folder)).tokenizer.get_vocab()


# ---- what is refused


def name_shard(name: str) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        shard(folder)
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"][LAST] = name
        (folder / INDEX).write_text(json.dumps(index))

    return do


def link_out(folder: Path) -> None:
    shard(folder)
    name = "model-00002-of-00002.safetensors"
    shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)


def beside(folder: Path) -> Path:
    return Path(shutil.copy(folder / "tokenizer.json", folder.parent / "outside.json"))


@pytest.mark.parametrize(
    ("do", "parts"),
    [
        (name_shard("w.bin"), (INDEX, "w.bin")),
        (name_shard("../w.safetensors"), (INDEX, "../w.safetensors")),
        (name_shard("/w.safetensors"), (INDEX, "/w.safetensors")),
        (name_shard("missing.safetensors"), (INDEX, "missing.safetensors")),
        (link_out, (INDEX, "model-00002-of-00002.safetensors")),
        (lambda folder: ((folder / WEIGHTS).unlink(), (folder / INDEX).write_text("[]")), (INDEX,)),
        (lambda folder: ((folder / WEIGHTS).unlink(), (folder / INDEX).write_text('{"weight_map": {"a": 3}}')), (INDEX, "weight_map")),
        (lambda folder: (folder / WEIGHTS).rename(folder / "model-1.safetensors"), (WEIGHTS,)),
        (lambda folder: edit(folder / SETTINGS, tokenizer_file=str(beside(folder))), (SETTINGS, "tokenizer_file", "outside.json")),
        (lambda folder: (beside(folder), edit(folder / SETTINGS, tokenizer_file="../outside.json")), (SETTINGS, "../outside.json")),
        (lambda folder: (folder / "mine.json").symlink_to(beside(folder)) or edit(folder / SETTINGS, tokenizer_file="mine.json"), (SETTINGS, "mine.json")),
        (lambda folder: (beside(folder), edit(folder / SETTINGS, fast_tokenizer_files=["../outside.json"])), (SETTINGS, "fast_tokenizer_files")),
        (lambda folder: (folder / SETTINGS).write_text("{"), (SETTINGS,)),
        (lambda folder: edit(folder / "config.json", configuration_files=["config.4.0.0.json"]), ("config.json", "configuration_files")),
        (lambda folder: edit(folder / "config.json", transformers_weights="w.safetensors"), ("config.json", "transformers_weights")),
    ],
)  # fmt: skip
def test_files_that_are_none_of_the_folder_are_refused(
    do: Callable[[Path], object], parts: tuple[str, ...], folder: Path
) -> None:
    do(folder)
    refused(lambda: backbone_identity(str(folder)), str(folder), *parts)
    refused(lambda: Backbone(str(folder)).encoder(), str(folder), *parts)


def test_a_snapshot_of_the_hubs_cache_links_to_its_blobs(folder: Path, tmp_path: Path) -> None:
    shard(folder)
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0"
    shutil.copytree(folder, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    assert backbone_identity(str(check_folder(snapshot))) == backbone_identity(str(folder))

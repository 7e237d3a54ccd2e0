"""Trainable parameters by formula against those of encoders with the regime attached."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from xadapt.models.backbone import Backbone
from xadapt.models.lora_fusion import WIDTH
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.sizes import LORA_FUSION_WIDTH, EncoderShape, fusion_parameters, trainable_parameters
from xadapt.regimes.specs import COMPOSITIONS, AdapterSpec, FullSpec, FusionSpec, LoraSpec, RegimeSpec
from xadapt_cli.app import app

EVERY_LINEAR = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
SPECS: list[RegimeSpec] = [
    FullSpec(), AdapterSpec(), AdapterSpec(config="double_seq_bn", reduction_factor=6), AdapterSpec(reduction_factor=64),
    LoraSpec(), LoraSpec(r=3, target_modules=EVERY_LINEAR), LoraSpec(r=4, use_dora=True, target_modules=EVERY_LINEAR),
    LoraSpec(r=5, use_rslora=True, target_modules=("value",)),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_formula_counts_what_moves(spec: RegimeSpec, tiny_backbone: Path) -> None:
    backbone, regime = Backbone(str(tiny_backbone)), open_regime(spec)
    encoder = regime.attach(backbone, name="xnli")
    counted = sum(parameter.numel() for _, parameter in regime.trainable(encoder))
    assert trainable_parameters(spec, EncoderShape.of(backbone.folder)) == counted


@pytest.mark.parametrize("spec", [AdapterSpec(), AdapterSpec(config="double_seq_bn"), LoraSpec(), LoraSpec(r=3, target_modules=EVERY_LINEAR)], ids=str)  # fmt: skip
@pytest.mark.parametrize("modules", [1, 3])
def test_the_formula_counts_a_fusion(spec: RegimeSpec, modules: int, tiny_backbone: Path, tmp_path: Path) -> None:
    backbone, regime = Backbone(str(tiny_backbone)), open_regime(spec)
    folders = [tmp_path / str(at) for at in range(modules)]
    for folder in folders:
        regime.save(regime.attach(backbone, name="mnli"), folder, name="mnli")
    encoder = regime.attach(backbone, name=None, fuse=folders, fusion=FusionSpec())
    counted = sum(parameter.numel() for _, parameter in regime.trainable(encoder))
    assert fusion_parameters(spec, EncoderShape.of(backbone.folder)) == counted


def test_the_width_of_a_lora_fusion_is_one_number() -> None:
    assert LORA_FUSION_WIDTH == WIDTH  # written twice, since one module must not load torch


def test_the_command_lists_every_regime(tiny_backbone: Path) -> None:
    result = CliRunner().invoke(app, ["regimes", "--backbone", str(tiny_backbone), "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {(record["regime"], *record["compositions"]) for record in found["regimes"]} == {
        (regime, *names) for regime, names in COMPOSITIONS.items()
    }
    assert found["regimes"][0]["parameters"] == trainable_parameters(FullSpec(), EncoderShape.of(tiny_backbone))
    assert CliRunner().invoke(app, ["regimes", "--backbone", str(tiny_backbone)]).exit_code == 0

"""`xadapt regimes`: what can train, how many parameters that is on a backbone, and the compositions each allows."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xadapt_cli.options import Backbone

if TYPE_CHECKING:
    from xadapt.regimes.specs import RegimeSpec

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

MEANINGS = {
    "none": "the target alone",
    "continue": "the target goes on from one intermediate task's parameters",
    "stack": "a new module for the target on top of one intermediate task's, which stays frozen",
    "fusion": "attention over several intermediate tasks' modules, the target's on top",
    "average": "the mean of several intermediate tasks' modules, the target's on top",
    "multitask": "one model, or module, trained on several intermediate tasks, then the target",
}


def regimes(backbone: Backbone = "embedded", as_json: Json = False) -> None:
    """List the regimes with their trainable parameters on a backbone and the compositions each allows."""
    from xadapt.models.identity import backbone_folder
    from xadapt.regimes.sizes import EncoderShape, fusion_parameters, trainable_parameters
    from xadapt.regimes.specs import COMPOSITIONS

    shape = EncoderShape.of(backbone_folder(backbone))
    records: list[dict[str, Any]] = [
        {
            "regime": spec.name, "module": _described(spec), "parameters": trainable_parameters(spec, shape),
            "fusion_parameters": fusion_parameters(spec, shape), "compositions": COMPOSITIONS[spec.name],
        }
        for spec in _shown()
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"backbone": backbone, "regimes": records, "compositions": MEANINGS}, indent=1))
        return
    _print(backbone, records)


def _shown() -> "list[RegimeSpec]":
    """Every kind of module with its default numbers."""
    from xadapt.regimes.specs import AdapterSpec, FullSpec, LoraSpec

    kinds = LoraSpec(), LoraSpec(use_rslora=True), LoraSpec(use_dora=True)
    return [FullSpec(), AdapterSpec(), AdapterSpec(config="double_seq_bn"), *kinds]


def _described(spec: "RegimeSpec") -> str:
    """What the options of a regime say, for people."""
    match spec.name:
        case "full":
            return "every parameter"
        case "adapter":
            return f"{spec.config}, reduction {spec.reduction_factor:g}"
        case "lora":
            kind = "DoRA" if spec.use_dora else "rsLoRA" if spec.use_rslora else "LoRA"
            return f"{kind}, r {spec.r}, {' '.join(spec.target_modules)}"


def _print(backbone: str, records: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from xadapt_cli.console import stdout_console

    whole = records[0]["parameters"]
    table = Table("regime", "module", "parameters", "share", "fusion of any number", box=None)
    for record in records:
        share, fusion = record["parameters"] / whole, record["fusion_parameters"]
        table.add_row(
            record["regime"],
            record["module"],
            f"{record['parameters']:,}",
            f"{share:.2%}",
            f"{fusion:,}" if fusion else "-",
        )
    console = stdout_console()
    console.print(f"trainable parameters on backbone {backbone}, heads aside", markup=False)
    console.print(table)
    console.print()
    allowed = {name: [r["regime"] for r in records if name in r["compositions"]] for name in MEANINGS}
    rows = Table("composition", "regimes", "meaning", box=None)
    for name, meaning in MEANINGS.items():
        rows.add_row(name, ", ".join(dict.fromkeys(allowed[name])), meaning)
    console.print(rows)
    typer.echo("\nDoRA takes no part in stacks, fusions and averages. Next: xadapt train-intermediate --task mnli")

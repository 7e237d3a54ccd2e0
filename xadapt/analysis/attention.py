"""What fusions attend to, as a chart and as a table: a panel a fusion and target, a cell a language, layer and module."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from xadapt.analysis.export import visible
from xadapt.analysis.table import MISSING, Row
from xadapt.languages import english_first

PANEL_WIDTH = 1040
EXPLAINED = (
    "mean attention of a fusion to each intermediate task's module, in percent, over languages and layers; equal shares "
    "would mean that it learnt no preference"
)


@dataclass(frozen=True)
class AttentionRecord:
    """The attention of one cell's model, evaluated under the key `stage`: (language, layer, module) to a share of one."""

    setting: str
    row: Row
    task: str
    seed: int
    stage: str
    shares: dict[tuple[str, int, str], float]

    @property
    def modules(self) -> list[str]:
        """What is fused, in order."""
        return list(dict.fromkeys(module for _, _, module in self.shares))


def attention_grid(records: Iterable[AttentionRecord], setting: str) -> list[list[str]]:
    """A header and a line for each fusion, target and seed of a setting, all as text; empty without any fusion."""
    found = [record for record in records if record.setting == setting]
    modules = list(dict.fromkeys(module for record in found for module in record.modules))
    lines = []
    for record in found:
        means = {
            module: fmean(value for (_, _, of), value in record.shares.items() if of == module)
            for module in record.modules
        }
        shown = [f"{100 * means[module]:.1f}" if module in means else MISSING for module in modules]
        lines.append([f"{record.row.label}: {record.task}{_seed(record, found)}", *shown])
    return [["", *modules], *lines] if lines else []


def _seed(record: AttentionRecord, among: Sequence[AttentionRecord]) -> str:
    return f", seed {record.seed}" if len({other.seed for other in among}) > 1 else ""


def draw_attention(records: Sequence[AttentionRecord], setting: str) -> Any:
    """Heat maps as an Altair chart, languages by layers, a facet a module; None without any fusion.

    The colour is the share over that of equal attention, so that fusions of few and of many modules can be compared.
    """
    import altair as alt

    found = [record for record in records if record.setting == setting]
    if not found:
        return None
    return alt.vconcat(*(_panel(record, found) for record in found), spacing=24)


def _panel(record: AttentionRecord, among: Sequence[AttentionRecord]) -> Any:
    import altair as alt

    modules = record.modules
    langs = english_first(list(dict.fromkeys(lang for lang, _, _ in record.shares)))
    values = [
        {"language": visible(lang), "layer": layer, "module": visible(module), "share": share * len(modules)}
        for (lang, layer, module), share in record.shares.items()
    ]
    width = max(60, PANEL_WIDTH // len(modules) - 24)
    scale = alt.Scale(scheme="blueorange", domainMid=1, domain=[0, 2], clamp=True)
    cells = alt.Chart(alt.Data(values=values)).mark_rect()
    cells = cells.encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("language:N", title=None, sort=[visible(lang) for lang in langs]),
        color=alt.Color("share:Q", scale=scale, title="times an equal share"),
    )
    title = f"{visible(record.row.label)}: {visible(record.task)}{_seed(record, among)}"
    header = alt.Header(title=None, labelFontSize=12)
    facet = alt.Facet("module:N", sort=[visible(name) for name in modules], header=header)
    return cells.properties(width=width, height=max(40, 11 * len(langs))).facet(facet, title=title)

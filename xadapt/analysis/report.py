"""The scorecard as one HTML file that opens offline: a chart, the tables, where the numbers come from."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xadapt.analysis.attention import EXPLAINED as ATTENTION_EXPLAINED
from xadapt.analysis.attention import attention_grid, draw_attention
from xadapt.analysis.costs import EXPLAINED
from xadapt.analysis.export import visible, write_atomically
from xadapt.analysis.scorecard import Scorecard
from xadapt.analysis.sweeps import EXPLAINED as SWEEP_EXPLAINED
from xadapt.analysis.table import MISSING, Cell, Note, Row, Table

# One hue a regime and one shade a composition, as CSS variables of the page (light and dark) with the light
# value behind. Blue, orange and green stay apart for colour-blind readers; shape and position repeat them.
SHADES: dict[str, tuple[str, ...]] = {
    "full": ("#4aa3df", "#00599c", "#00315c"),
    "adapter": ("#f0a030", "#cf5410", "#7d2b00"),
    "lora": ("#35b597", "#00795e", "#00463a"),
    "other": ("#b57edc", "#7a3fa0", "#45205e"),
}
SHAPES = ("circle", "triangle-up", "square", "diamond", "triangle-down", "cross")
CHART_WIDTH = 1040
INK = "currentColor"
Swatches = dict[Row, tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """Everything the report shows of one setting."""

    name: str
    chart: str
    swatches: Swatches
    overall: Table
    tasks: tuple[tuple[str, Table, Table], ...]
    footnotes: tuple[Note, ...]
    absent: tuple[str, ...]
    costs: Sequence[Sequence[str]] = ()
    attention: Sequence[Sequence[str]] = ()
    attention_chart: str = ""


def write_report(
    scorecard: Scorecard,
    path: Path | str,
    *,
    title: str,
    provenance: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """Write the report as one HTML file without external references, atomically.

    provenance is printed as names and values (version, backbone, data, caps, seed, dtype, date), notes as
    sentences above the tables. Every text is escaped and its invisible characters are made visible. Raises
    OSError where the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xadapt.analysis", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        missing=MISSING,
        palette=_palette(),
        describe=_describe,
        costs_explained=EXPLAINED,
        attention_explained=ATTENTION_EXPLAINED,
        sweep_explained=SWEEP_EXPLAINED,
    )
    environment.filters["breakable"] = _breakable
    sections = [_section(scorecard, setting) for setting in scorecard.settings()]
    sweeps = scorecard.sweeps()
    page = environment.get_template("report.html").render(
        title=title, provenance=provenance, notes=notes, sections=sections, count=len(scorecard.scores), sweeps=sweeps,
        sweep_notes=sorted({note for table in sweeps for note in table.footnotes}),
    )  # fmt: skip
    write_atomically(path, page.encode())


def draw_chart(scorecard: Scorecard, setting: str) -> str:
    """One panel a target as SVG text: points per language and family, and below them the gain over none.

    Dots are languages, ticks the means of families; x groups rows within families. Repeated scores are left
    out, since they are no result of their own. Returns "" where nothing is left to draw.
    """
    import altair as alt

    panels = []
    swatches = _swatches(scorecard.rows(setting))
    for task in scorecard.tasks(setting):
        marks = list(_marks(scorecard, setting, task))
        if marks:
            panels.append(_panel(scorecard.families(setting, task), marks, swatches))
    if not panels:
        return ""
    return _svg(alt.vconcat(*panels, spacing=26).resolve_scale(xOffset="independent"))


def _svg(chart: Any) -> str:
    """A chart in the page's own ink, as text."""
    import altair as alt
    import vl_convert

    whole = chart.configure(
        aria=False,  # Vega builds these labels by evaluating names as code
        background="transparent",
        font="sans-serif",
        axis=alt.AxisConfig(
            labelColor=INK, titleColor=INK, domainColor=INK, tickColor=INK, gridColor=INK, gridOpacity=0.13,
            domainOpacity=0.4, tickOpacity=0.4, labelFontSize=11, titleFontSize=11, titleFontWeight="normal",
        ),
        view=alt.ViewConfig(stroke=None),
        header=alt.HeaderConfig(labelColor=INK, titleColor=INK),
        legend=alt.LegendConfig(labelColor=INK, titleColor=INK),
        title=alt.TitleConfig(color=INK, fontSize=15, anchor="start", subtitleColor=INK, subtitleFontSize=11),
    )  # fmt: skip
    return _inline(vl_convert.vegalite_to_svg(whole.to_json()))


def _inline(svg: str) -> str:
    """The SVG scaled by the page, and without the namespaces that HTML does not need."""
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    return re.sub(
        r'<svg([^>]*?) width="[\d.]+" height="[\d.]+"',
        r'<svg\1 role="img" aria-label="chart of the tables below"',
        svg,
        count=1,
    )


def _panel(families: Table, marks: Sequence[dict[str, Any]], swatches: Swatches) -> Any:
    """A target's scores above its gains; both share the order of families and of rows."""
    import altair as alt

    labels = [label for label, _ in _places(families).values()]
    gains = [mark for mark in marks if mark["gain"] is not None]
    title = f"{visible(families.lines[0].metric)}, points"
    parts = [_strip(marks, "value", title, _x(labels, shown=not gains), swatches).properties(height=190)]
    if gains:
        strip = _strip(gains, "gain", "gain over none", _x(labels, shown=True), swatches)
        parts.append(strip.properties(height=95))
    stacked = alt.vconcat(*parts, spacing=8, title=visible(families.task))
    return stacked.resolve_scale(x="independent", xOffset="independent")


def _x(labels: Sequence[str], *, shown: bool) -> Any:
    """The axis of families, with lines between them; a label's second line is its n."""
    import altair as alt

    lines = "split(datum.label, '\\n')"
    axis = alt.Axis(
        labelExpr=lines, labelAngle=0, labelLimit=90, labels=shown, ticks=False, grid=True, tickBand="extent"
    )
    scale = alt.Scale(domain=list(labels), paddingInner=0, paddingOuter=0)
    return alt.X("family:N", sort=list(labels), title=None, axis=axis, scale=scale)


def _strip(marks: Sequence[dict[str, Any]], field: str, title: str, x: Any, swatches: Swatches) -> Any:
    """Dots and mean ticks of one quantity, rows side by side within each family."""
    import altair as alt

    names = [visible(row.label) for row in swatches]
    colours = alt.Scale(domain=names, range=[colour for colour, _ in swatches.values()])
    shapes = alt.Scale(domain=names, range=[shape for _, shape in swatches.values()])
    y = alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=field == "gain"), axis=alt.Axis(tickCount=5))
    beside = alt.Scale(type="band", domain=names, paddingOuter=min(1.0, 0.2 * len(names)))
    offset = alt.XOffset("row:N", sort=names, scale=beside)
    colour = alt.Color("row:N", scale=colours, legend=None)
    data = alt.Chart(alt.Data(values=list(marks))).encode(x=x, y=y, xOffset=offset, color=colour)
    dots = data.transform_filter("!datum.mean").mark_point(filled=True, strokeWidth=1)
    dots = dots.encode(
        shape=alt.Shape("row:N", scale=shapes, legend=None),
        size=alt.condition("datum.alone", alt.value(40), alt.value(22)),
        opacity=alt.condition("datum.alone", alt.value(1), alt.value(0.6)),
        fillOpacity=alt.condition("datum.collapsed", alt.value(0), alt.value(1)),
        stroke=alt.Stroke("row:N", scale=colours, legend=None),
    )
    size = min(26.0, max(3.0, 0.66 * CHART_WIDTH / len({mark["family"] for mark in marks}) / len(names)))
    ticks = data.transform_filter("datum.mean").mark_tick(thickness=2.5, size=size, orient="horizontal", opacity=1)
    layers = [dots, ticks]
    if field == "gain":
        zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=INK, opacity=0.6)
        layers.insert(0, zero.encode(y="zero:Q"))
    return alt.layer(*layers).properties(width=CHART_WIDTH)


def _places(table: Table) -> dict[str, tuple[str, int]]:
    """Where the x axis puts languages: the label and size of `en` and of each family, in order."""
    places = {"en": ("English\ntrained on", 1)} if any(c.name == "en" for c in table.columns) else {}
    for column in table.columns:
        if column.family:
            places[column.family] = (f"{visible(column.name)}\nn = {column.n}", column.n or 0)
    return places


def _marks(scorecard: Scorecard, setting: str, task: str) -> Iterator[dict[str, Any]]:
    """A record a dot (language) and a tick (mean of a family of several), of the main metric."""
    by_family, by_language = scorecard.families(setting, task), scorecard.languages(setting, task)
    places = _places(by_family)
    for table, mean in ((by_family, True), (by_language, False)):
        for line in (line for line in table.lines if line.metric == table.lines[0].metric):
            for column, cell in zip(table.columns, line.cells, strict=True):
                label, size = places.get("en" if column.name == "en" else column.family, ("", 0))
                if cell and "†" not in cell.marks and (size > 1 or (size == 1 and not mean)):
                    yield {"family": label, "row": visible(line.row.label)} | _point(cell, mean, size == 1)


def _point(cell: Cell, mean: bool, alone: bool) -> dict[str, Any]:
    gain = cell.gain.value if cell.gain else None
    return {"value": cell.value, "gain": gain, "mean": mean, "alone": alone, "collapsed": "‡" in cell.marks}


def _swatches(rows: Sequence[Row]) -> Swatches:
    """A colour (a CSS variable) and a shape for each row, no pair twice among a regime's first 18 rows."""
    found: Swatches = {}
    for row in rows:
        regime = row.regime if row.regime in SHADES else "other"
        place = sum(earlier.regime == row.regime for earlier in found)
        shade = SHADES[regime][place % 3]
        found[row] = (f"var(--{regime}-{place % 3}, {shade})", SHAPES[(place + place // 6) % 6])
    return found


def _palette() -> dict[str, str]:
    return {f"--{regime}-{step}": shade for regime, row in SHADES.items() for step, shade in enumerate(row)}


def _section(scorecard: Scorecard, setting: str) -> Section:
    overall = scorecard.overall(setting)
    names = scorecard.tasks(setting)
    tasks = tuple((n, scorecard.families(setting, n), scorecard.languages(setting, n)) for n in names)
    tables = [overall, *(table for _, families, languages in tasks for table in (families, languages))]
    footnotes = tuple(sorted({note for table in tables for note in table.footnotes}))
    repeated = tuple(note.text.split(":")[0] for note in footnotes if note.mark == "†")
    swatches = _swatches(scorecard.rows(setting))
    attention = draw_attention(scorecard.attention, setting)
    return Section(
        setting, draw_chart(scorecard, setting), swatches, overall, tasks, footnotes, repeated, scorecard.costs(setting),
        attention_grid(scorecard.attention, setting), _svg(attention) if attention else "",
    )  # fmt: skip


def _describe(cell: Cell) -> str:
    """What a pointer over a cell shows."""
    parts = [f"{cell.value:.2f}", f"{cell.languages} of {cell.expected} languages"]
    parts.append(f"{cell.seeds} seed{'s' * (cell.seeds > 1)}")
    if cell.sd is not None:
        parts.append(f"standard deviation {cell.sd:.2f}")
    return ", ".join([*parts, *(note.text for note in cell.notes)])


def _breakable(text: str) -> str:
    """Names joined by commas, as they are printed, with room for a line break behind each."""
    from markupsafe import Markup, escape

    return Markup(",<wbr>").join(escape(part) for part in visible(text).split(","))


def _shown(value: object) -> object:
    """What the template prints: plain text with nothing invisible in it; marked-up text as it stands."""
    from markupsafe import Markup

    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

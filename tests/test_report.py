"""The report and the terminal tables: complete, self-contained, and safe with hostile names."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from test_scorecard import CONTINUE, FIVE_ROWS, HOSTILE, NONE, STACK, made_up, made_up_study

from xadapt.analysis.records import Score
from xadapt.analysis.report import draw_chart, write_report
from xadapt.analysis.scorecard import Scorecard
from xadapt_cli.tables import render_scorecard

LOADING_ATTRIBUTES = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}
HOSTILE_SHOWN = HOSTILE.replace("\u202e", r"\u202e").replace("\x1b", r"\x1b").replace("\n", r"\n")
TWELVE_ROWS = (
    *FIVE_ROWS,
    *((regime, way, "mnli+made_up_task") for regime in ("adapter", "lora") for way in ("stack", "fusion", "average")),
    ("lora", "none", ""),
)


class Page(HTMLParser):
    """What a browser would see: tags, attributes, texts, the cells of the tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []


def page_of(scores: list[Score], path: Path, **fields: str) -> tuple[str, Page]:
    texts = {"title": "Made up", "note": "These numbers are made up.", "version": "0"} | fields
    provenance = {"version": texts["version"]}
    write_report(Scorecard(scores), path, title=texts["title"], provenance=provenance, notes=[texts["note"]])
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def hostile_scores() -> list[Score]:
    names = {"setting": HOSTILE, "family": HOSTILE, "task": HOSTILE, "metric": HOSTILE, "stage": HOSTILE}
    row = (HOSTILE, "stack", HOSTILE)
    common = {**names, "language": HOSTILE}
    return [made_up(row=row, value=50.0, **common), made_up(row=(HOSTILE, "none", ""), value=40.0, **common)]


def printed(scores: list[Score], width: int = 100, *, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    render_scorecard(Scorecard(scores), console)
    return out.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return page_of(made_up_study(seeds=(1, 2)), tmp_path_factory.mktemp("report") / "report.html")


def test_report_holds_no_reference_to_anything_outside(study: tuple[str, Page]) -> None:
    html, page = study
    assert not {"script", "link", "img", "iframe", "object", "base", "image", "use"} & set(page.tags)
    assert not LOADING_ATTRIBUTES & {name for name, _ in page.attributes}
    assert not re.search(r"https?:|url\(|@import|//[a-z]", html)


def test_report_shows_chart_tables_notes_and_provenance(study: tuple[str, Page]) -> None:
    html, page = study
    assert page.tags.count("table") == 1 + 3 * 2
    assert page.tags.count("details") == 3
    assert html.count('role="img"') == 1
    assert {"These numbers are made up.", "version", "Overall", "udpos by family"} <= set(page.texts)
    assert any("nothing new to train" in text for text in page.texts)


def test_report_prints_the_scorecards_numbers(study: tuple[str, Page]) -> None:
    _, page = study
    table = Scorecard(made_up_study(seeds=(1, 2))).overall("made up")
    numbers = {cell.number for line in table.lines for cell in line.cells if cell}
    assert numbers <= set(page.texts[page.texts.index("Overall") : page.texts.index("xnli by family")])


def test_missing_cells_are_dashes_and_never_zero(tmp_path: Path) -> None:
    scores = [made_up("de", 61.2), made_up("de", 63.4, CONTINUE), made_up("de", 71.5, task="tatoeba")]
    _, page = page_of(scores, tmp_path / "report.html")
    overall = page.texts[page.texts.index("Overall") : page.texts.index("xnli by family")]
    assert overall.count("-") == 2  # tatoeba of continue, gain of none
    assert "0.0" not in overall


def test_chart_leaves_repeated_scores_out() -> None:
    fresh = [made_up("de", 60), made_up("fr", 50)]
    repeated = [made_up(code, value, CONTINUE, repeats=True) for code, value in (("de", 60), ("fr", 50))]
    with_gain = [made_up(code, value, CONTINUE) for code, value in (("de", 62), ("fr", 51))]
    drawn = draw_chart(Scorecard(fresh + repeated), "made up")
    assert "gain over none" not in drawn
    assert "gain over none" in draw_chart(Scorecard(fresh + with_gain), "made up")
    assert draw_chart(Scorecard(repeated), "made up") == ""


def test_chart_draws_a_dot_a_language_and_ticks_only_for_families_of_several() -> None:
    drawn = draw_chart(Scorecard([made_up(code) for code in ("en", "de", "fr", "sw")]), "made up")
    symbols = [group.split("</g>")[0] for group in drawn.split("mark-symbol")[1:]]
    ticks = [group.split("</g>")[0] for group in drawn.split("mark-rect")[1:]]
    assert sum(group.count("<path") for group in symbols) == 4
    assert sum(group.count("<path") for group in ticks) == 1


def test_report_neutralises_hostile_names(tmp_path: Path) -> None:
    html, page = page_of(hostile_scores(), tmp_path / "r.html", title=HOSTILE, note=HOSTILE, version=HOSTILE)
    assert "script" not in page.tags
    assert not {"\u202e", "\x1b"} & set(html)
    assert page.texts.count(HOSTILE_SHOWN) >= 3


def test_report_of_nothing_says_so(tmp_path: Path) -> None:
    _, page = page_of([], tmp_path / "report.html")
    assert "There are no scores yet." in page.texts
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_report_separates_settings(tmp_path: Path) -> None:
    scores = [made_up("de", setting="first"), made_up("de", setting="second")]
    _, page = page_of(scores, tmp_path / "report.html")
    assert page.texts.index("first") < page.texts.index("second")
    assert page.texts.count("Overall") == 2


def test_wide_terminal_gets_families_as_columns() -> None:
    text = printed(made_up_study(tasks=["xnli"]), 300, terminal=True)
    assert "─" in text
    assert re.search(r"Indo-European +Afro-Asiatic", text)


@pytest.mark.parametrize(("width", "terminal"), [(40, True), (80, True), (100, False), (300, True)])
def test_terminal_tables_never_cut_a_number(width: int, terminal: bool) -> None:
    scores = made_up_study(TWELVE_ROWS, tasks=["udpos"], seeds=(1, 2))
    text = printed(scores, width, terminal=terminal)
    table = Scorecard(scores).families("made up", "udpos")
    for cell in (cell for line in table.lines for cell in line.cells if cell):
        assert cell.text in text
    assert "…" not in text


def test_narrow_output_turns_families_into_lines_within_the_width() -> None:
    lines = printed(made_up_study([NONE, STACK], tasks=["udpos"])).splitlines()
    numbers = [line for line in lines if re.match(r"(Indo-European|mean without en) \(n=\d+\)  ", line)]
    assert len(numbers) == 4  # two families' lines in each of two metrics
    assert all(len(line) <= 100 for line in numbers)


def test_what_fits_neither_way_is_cut_into_blocks_of_whole_columns() -> None:
    lines = printed(made_up_study(tasks=["udpos"])).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("udpos f1"))
    table = lines[start + 1 : start + next(n for n, line in enumerate(lines[start:]) if line.startswith("udpos acc"))]
    assert all(len(line) <= 100 for line in table)
    headers = " ".join(line for line in table if line.startswith(" "))
    assert all(name in headers for name in ("mean without en", "Indo-European", "Uralic", "Kra-Dai"))
    blocks = sum(line.startswith(" ") for line in table)
    assert blocks > 1
    assert sum(line.startswith("adapter · stack · mnli  ") for line in table) == blocks


@pytest.mark.parametrize(
    ("rows", "width"), [(FIVE_ROWS, 100), (FIVE_ROWS, 300), (TWELVE_ROWS, 100), (TWELVE_ROWS, 300)]
)
def test_all_tables_of_one_output_keep_one_orientation(rows: list[tuple[str, str, str]], width: int) -> None:
    """Either every line of a table is a way to adapt, or every line is a column of scores."""
    text = printed(made_up_study(rows, tasks=["xnli", "tatoeba"]), width, terminal=width == 300)
    firsts = {line.partition("  ")[0].strip() for line in text.splitlines()}
    as_lines = {"full · none"} & firsts
    turned = {"xnli (n=15)", "mean without en (n=14)", "Indo-European (n=9)"} & firsts
    assert not (as_lines and turned)
    assert len(as_lines) + len(turned) in (1, 3)


def test_languages_can_stand_in_the_families_place() -> None:
    out = io.StringIO()
    scores = [made_up("am", 23.2, family="Afro-Asiatic"), made_up("ha", 66.9, family="Afro-Asiatic")]
    render_scorecard(Scorecard(scores), Console(file=out, width=100), by="language")
    assert {"am", "ha"} <= set(out.getvalue().split())
    assert {"23.2", "66.9"} <= set(out.getvalue().split())
    assert "Afro-Asiatic" not in out.getvalue()


def test_terminal_tables_neutralise_hostile_names() -> None:
    for width, terminal in ((100, False), (400, True)):
        text = printed(hostile_scores(), width, terminal=terminal)
        assert not {"\u202e", "\x1b"} & set(text)
        assert HOSTILE_SHOWN in text


def test_terminal_footnotes_explain_the_marks() -> None:
    scores = [made_up("de", 33.3, collapsed=True), made_up("de", 33.3, CONTINUE, repeats=True)]
    text = printed([*scores, made_up("sw", 20)])
    assert re.search(r"^‡ a model collapsed", text, re.MULTILINE)
    assert re.search(r"^† mnli is xnli's own training data", text, re.MULTILINE)
    assert re.search(r"33\.3† \[1/2\]", text)
    assert "setting: made up" in text

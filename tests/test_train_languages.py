"""Training in other languages than English: translated intermediate data, several languages in turn."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from silent_reporter import Silent

from xadapt.data.fetch import needs
from xadapt.data.mirror import MirrorSource
from xadapt.data.rows import Rows
from xadapt.data.splits import in_turn
from xadapt.data.xtreme_layout import XtremeSource
from xadapt.errors import UserError
from xadapt.study.collect import study_of
from xadapt.study.collection import Collection
from xadapt.study.executors import run_plan
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt.tasks import get_task
from xadapt.tasks.catalogue import get_training_data

LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture
def translated(mirror: Path) -> Path:
    """A mirror in which XNLI's German and Russian train splits stand, each text marked by its language."""
    for lang in ("de", "ru"):
        rows = {
            "premise": [f"{lang} premise {i}" for i in range(24)],
            "hypothesis": [f"{lang} hypothesis {i}" for i in range(24)],
            "label": [LABELS[i % 3] for i in range(24)],
        }
        (mirror / "xnli" / lang).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows), mirror / "xnli" / lang / "train.parquet")
    return mirror


def plan(data: Path, backbone: Path, **values: Any) -> Plan:
    given = {"backbone": str(backbone), "data": str(data), "training": {"dtype": "float32"}, "languages": ["en", "de"]}
    return make_plan(make_recipe(given | values, place="the test"))


@pytest.mark.parametrize(
    ("name", "canonical", "langs"),
    [
        ("mnli", "mnli", ("en",)), ("mnli@en", "mnli", ("en",)), ("mnli@ru+de+ru", "mnli@de+ru", ("de", "ru")),
        ("mnli@en+de", "mnli@de+en", ("de", "en")), ("pawsx@zh", "pawsx@zh", ("zh",)), ("xnli@sw", "xnli@sw", ("sw",)),
        ("mlm@yo", "mlm@yo", ("yo",)),
    ],
)  # fmt: skip
def test_what_a_name_with_languages_means(name: str, canonical: str, langs: tuple[str, ...]) -> None:
    found = get_training_data(name)
    assert (found.name, found.langs) == (canonical, langs)
    assert get_training_data(canonical) == found


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("mnli@yo", "'yo'.*mnli"), ("mnli@", "''"), ("mnli@de,ru", "'de,ru'"), ("squad@de", "'de'.*Valid: en"),
        ("tatoeba@de", "no training"), ("mnl@de", "'mnl'.*'mnli'"), ("udpos@ka", "'ka'.*udpos"),
    ],
)  # fmt: skip
def test_languages_that_a_task_lacks_are_refused(name: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        get_training_data(name, place="here")


def test_english_is_the_same_stage_however_it_is_written(translated: Path, tiny_backbone: Path) -> None:
    plain, marked, german = (
        plan(translated, tiny_backbone, intermediate=[name]) for name in ("mnli", "mnli@en", "mnli@de")
    )
    assert [stage.key for stage in plain.stages] == [stage.key for stage in marked.stages]
    assert plain.stages[0].key != german.stages[0].key
    assert german.stages[0].label == "train mnli@de, adapter"


def test_selection_stays_on_english(translated: Path, tiny_backbone: Path) -> None:
    (stage,) = plan(translated, tiny_backbone, intermediate=["mnli@de+ru"]).stages
    (english,) = plan(translated, tiny_backbone, intermediate=["mnli"]).stages
    assert (stage.spec["train"]["lang"], stage.spec["dev"]) == ("de+ru", english.spec["dev"])


def test_the_translation_is_read_and_languages_take_turns(translated: Path) -> None:
    source, task = MirrorSource(translated), get_task("mnli")
    parts = [source.load(task, lang, "train", limit=5) for lang in ("de", "ru")]
    assert source.count(task, "de", "train") == 24
    both = in_turn(parts, limit=5)
    assert list(both.columns["text_a"]) == [
        "de premise 0", "ru premise 0", "de premise 1", "ru premise 1", "de premise 2"
    ]  # fmt: skip
    assert (both.lang, list(both.columns["label"])) == ("de+ru", [0, 0, 1, 1, 2])
    assert both.identity == " ".join(part.identity for part in parts)


def test_a_language_that_ends_first_leaves_the_others_their_turns(translated: Path) -> None:
    def rows(*texts: str) -> Rows:
        return Rows("mlm", "de", "train", {"text": texts}, "i", "p")

    assert list(in_turn([rows("a"), rows("b", "c", "d")], limit=None).columns["text"]) == ["a", "b", "c", "d"]


def test_both_stand_in_one_table(translated: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    """English and German mnli behind xnli, and xnli trained in German: rows and columns of their own, no mark."""
    recipe = make_recipe(
        {
            "backbone": str(tiny_backbone), "data": str(translated), "intermediate": ["mnli", "mnli@de"],
            "targets": ["xnli", "xnli@de"], "languages": ["en", "de"], "max_train_samples": 12, "max_eval_samples": 4,
            "max_predict_samples": 4, "training": {"max_steps": 1, "dtype": "float32"},
            "regimes": {"full": {"compositions": ["none", "continue"]}},
        },
        place="the test",
    )  # fmt: skip
    made, store = make_plan(recipe), Store(tmp_path / "store")
    assert {o.status for o in run_plan(made, store, Silent())} == {"succeeded"}
    found = {
        (score.task, score.composition, score.intermediate): score.repeats
        for score in Collection(store, {"s": study_of(recipe, made)}).scores()
    }
    assert found == {
        ("xnli", "none", ""): False, ("xnli", "continue", "mnli"): True, ("xnli", "continue", "mnli@de"): False,
        ("xnli@de", "none", ""): False, ("xnli@de", "continue", "mnli"): False,
        ("xnli@de", "continue", "mnli@de"): True,
    }  # fmt: skip


def test_a_mirror_without_the_translation_names_the_fetch(mirror: Path) -> None:
    with pytest.raises(UserError, match=r"fetch --tasks mnli@sw --to"):
        MirrorSource(mirror).identity(get_task("mnli"), "sw", "train")


def test_xtremes_download_has_no_translations(tmp_path: Path) -> None:
    (tmp_path / "xnli").mkdir()
    (tmp_path / "xnli/train-en.tsv").write_text("a\tb\tneutral\n")
    with pytest.raises(UserError, match="'de'"):
        XtremeSource(tmp_path).identity(get_task("mnli"), "de", "train")


def test_the_suite_trains_in_english_and_a_plan_says_so(tiny_backbone: Path) -> None:
    with pytest.raises(UserError, match=r"'de'.*train split of mnli"):
        make_plan(
            make_recipe({"backbone": str(tiny_backbone), "data": "embedded", "intermediate": ["mnli@de"]}, place="x")
        )


def test_translations_are_fetched_where_they_are_asked_for() -> None:
    def parts(names: list[str], **langs: list[str]) -> set[tuple[str, str, str]]:
        wanted = needs([get_task(name) for name in names], ["de"], train_languages=langs)
        return {(need.part.hub.dataset, need.lang, need.split) for need in wanted if need.task == "mnli"}

    english = {("nyu-mll/glue", "en", "train"), ("nyu-mll/glue", "en", "validation")}
    assert parts(["mnli", "xnli"]) == english
    translated = {("facebook/xnli", lang, "train") for lang in ("de", "sw")}
    assert parts(["mnli", "xnli"], mnli=["de", "sw"]) == parts(["xnli"], mnli=["de", "sw"]) == english | translated
    german = needs([get_task("xnli")], train_languages={"mnli": ["de"]})[0]
    with pytest.raises(UserError, match="train split of task 'mnli' for 'de'"):
        german.files(["de/test-00000-of-00001.parquet"], "the hub")

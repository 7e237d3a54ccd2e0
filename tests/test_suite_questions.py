"""The embedded suite's span and choice tasks: exact answers, one to a question, and no choice right by its place."""

from collections import Counter
from typing import Any

import pytest
from guessing import choices_of, words

from xadapt.data.suite import languages, suite_rows, task_languages
from xadapt.data.suite.grammar import UPOS, load_language
from xadapt.data.suite.grids import diagonal, settings, square
from xadapt.data.suite.passages import ASKED, draw_passage, span_of, told
from xadapt.data.suite.scenes import DETAILS, Scene, concepts, generator, split_of

Row = dict[str, Any]
SPANS = {
    "squad": ("train", "validation"),
    "squad_v2": ("train", "validation"),
    "xquad": ("validation",),
    "mlqa": ("validation", "test"),
    "tydiqa": ("train", "validation"),
}
CHOICES = ("hellaswag", "cosmos_qa", "commonsense_qa")
ASKING = [lang for lang in languages() if load_language(lang).asks]


@pytest.mark.parametrize("lang", ASKING)
def test_answers_are_the_tokens_of_their_slot(lang: str) -> None:
    language, rng = load_language(lang), generator("spans")
    for _ in range(300):
        passage = draw_passage(rng, "test")
        context, spans = told(language, passage)
        sentences = [
            language.marked(scene, fronted=fronted)
            for scene, fronted in zip(passage.scenes, passage.fronted, strict=True)
        ]
        assert context == language.gap.join(language.text(tokens) for tokens, _ in sentences)
        for question, target in passage.questions:
            tokens, slots = sentences[target if target is not None else 0]
            first, last = span_of(passage.kind, slots)
            assert last >= first
            start, end = spans[target or 0]
            forms = [form for form, _ in tokens[first : last + 1]]
            spoken = "".join([*forms[:-1], language.bare(forms[-1])])
            assert context[start:end].replace(" ", "") == spoken.replace(" ", "")
            asked = language.question(passage.kind, question)
            assert all(form.strip() == form != "" and tag in UPOS - {"X"} for form, tag in asked)
            assert language.text(asked)[0] == language.text(asked)[0].upper() or not language.text(asked)[0].isalpha()


def test_korean_answers_end_before_the_particles_of_subject_and_object() -> None:
    kinds = Counter[str]()
    for row in suite_rows("tydiqa", "ko", "validation"):
        text, start = row["answers"]["text"][0], row["answers"]["answer_start"][0]
        after = row["context"][start + len(text)]
        assert text[-1] not in "은는을를"
        kinds[after if after in "은는을를" else "none"] += 1
    assert min(kinds["은"] + kinds["는"], kinds["을"] + kinds["를"], kinds["none"]) > 50


@pytest.mark.parametrize("lang", languages())
def test_places_and_where_have_every_form_that_a_verb_asks_for(lang: str) -> None:
    """A missing form would silently be another one."""
    sections = load_language(lang).sections
    asked = {verb[key] for verb in sections["verb"].values() for key in ("place", "at") if key in verb}
    entries = [*sections["place"].values(), *(sections["words"][w] for w in ("where",) if w in sections["words"])]
    assert all(asked <= set(entry) for entry in entries)
    if len(asked) > 1 and load_language(lang).asks:
        assert "where" in sections["words"]


@pytest.mark.parametrize("task", SPANS)
def test_offsets_are_exact(task: str) -> None:
    for split in SPANS[task]:
        for lang in task_languages(task, split):
            for row in suite_rows(task, lang, split, 500):
                texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
                assert len(texts) == len(starts) == 1 or (task == "squad_v2" and texts == starts == [])
                for text, start in zip(texts, starts, strict=True):
                    assert text
                    assert row["context"][start : start + len(text)] == text == text.strip()


def fits(question: Scene, scene: Scene, asked: str) -> bool:
    """Whether a sentence about the scene answers the question: it is told with "yes" and has all that is named."""
    named = [d for d in ("agent", "verb", "object", *DETAILS) if d != asked and getattr(question, d) is not None]
    # The answer to "what" is the whole phrase, to "who" the person with the trait.
    named = [d for d in named if d not in {"object": ("adjective", "number"), "agent": ("trait",)}.get(asked, ())]
    return not scene.negated and all(getattr(question, d) == getattr(scene, d) for d in named)


@pytest.mark.parametrize("unanswerable", [False, True])
def test_exactly_the_stated_sentence_answers(unanswerable: bool) -> None:
    rng = generator("unique")
    for split in ("train", "validation", "test"):
        for _ in range(1000):
            passage = draw_passage(rng, split, unanswerable=unanswerable)
            for question, target in passage.questions:
                found = [i for i, s in enumerate(passage.scenes) if fits(question, s, ASKED[passage.kind])]
                assert found == ([] if target is None else [target])


def test_half_of_the_questions_have_no_answer_and_their_words_are_in_the_passage() -> None:
    rows = suite_rows("squad_v2", "en", "validation")
    assert sum(not row["answers"]["text"] for row in rows) == len(rows) / 2
    for split in SPANS["squad_v2"]:
        for first, second in zip(*[iter(suite_rows("squad_v2", "en", split, 300))] * 2, strict=True):
            assert first["context"] == second["context"]
            assert {bool(first["answers"]["text"]), bool(second["answers"]["text"])} == {True, False}


def test_span_positions_are_even() -> None:
    """The place of the answering sentence and its kind of question say nothing about each other."""
    rng, places = generator("positions"), Counter[tuple[str, int]]()
    for _ in range(3000):
        passage = draw_passage(rng, "train")
        for _, target in passage.questions:
            if len(passage.scenes) == 4:
                places[passage.kind, target or 0] += 1
    for kind in ASKED:
        total = sum(places[kind, i] for i in range(4))
        assert max(places[kind, i] for i in range(4)) / total < 0.25 + 0.05


@pytest.mark.parametrize("task", SPANS)
def test_span_tasks_are_parallel(task: str) -> None:
    english = suite_rows(task, "en", "validation", 200)
    for lang in task_languages(task, "validation"):
        rows = suite_rows(task, lang, "validation", 200)
        key = [(row["id"], row["title"], bool(row["answers"]["text"])) for row in rows]
        assert key == [(row["id"], row["title"], bool(row["answers"]["text"])) for row in english]


def test_grids_stay_in_their_split_and_tell_scenes_apart_only_together() -> None:
    class_of = {member: name for name, members in concepts().classes.items() for member in members}
    rng = generator("grids")
    for split in ("train", "validation", "test"):
        assert len(settings(split)) > 20
        for _ in range(500):
            for grid in (square(rng, split, "place"), diagonal(rng, split, "object")):
                first, second = grid.varied
                owners = {split_of(s.agent, s.verb, class_of[s.object]) for s in grid.scenes}
                assert owners == {split}
                cells = {(getattr(s, first), getattr(s, second)) for s in grid.scenes}
                assert len(cells) == len(grid.scenes) == len({getattr(s, grid.asked) for s in grid.scenes})


@pytest.mark.parametrize("task", CHOICES)
def test_choices_are_distinct_and_their_places_balanced(task: str) -> None:
    for split in ("train", "validation"):
        rows = suite_rows(task, "en", split, 1000)
        count = len(choices_of(rows[0])[0])
        assert set(Counter(choices_of(row)[1] for row in rows).values()) == {1000 // count}
        assert all(len(set(choices_of(row)[0])) == count for row in rows)


def test_the_right_choice_is_the_one_that_the_passage_tells() -> None:
    for row in suite_rows("hellaswag", "en", "validation", 400):
        sentences = {frozenset(words(s)) for s in row["ctx_a"].split(". ")}
        told_so = [frozenset(words(f"{row['ctx_b']} {ending}")) in sentences for ending in row["endings"]]
        assert told_so == [i == int(row["label"]) for i in range(4)]
    class_of = {
        load_language("en").form("object", m, "form")[0][0]: c for c, ms in concepts().classes.items() for m in ms
    }
    for row in suite_rows("commonsense_qa", "en", "validation", 400):
        texts, right = choices_of(row)
        if "Which of these" in row["question"]:
            kind = class_of[texts[right]]
            assert load_language("en").text(load_language("en").form("object_class", kind, "form")) in row["question"]
        else:
            assert any(word in row["question"] and class_of[word] in texts[right] for word in class_of)


def test_fruits_and_vegetables_are_never_offered_together() -> None:
    """A tomato may pass for either."""
    inventory, language = concepts(), load_language("en")
    plants = {
        name: {
            language.text(language.form(section, concept, "form"))
            for section, ids in (("object_class", [name]), ("object", inventory.classes[name]))
            for concept in ids
        }
        for name in ("fruit", "vegetable")
    }
    seen = Counter[str]()
    for row in suite_rows("commonsense_qa", "en", "train", 1000):
        found = {name for name, texts in plants.items() if texts & set(row["choices"]["text"])}
        assert len(found) < 2
        seen.update(found)
    assert min(seen.values()) > 300

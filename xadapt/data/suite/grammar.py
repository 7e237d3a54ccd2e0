"""Sentences: a scene and a language's data file give tokens with their parts of speech."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from .scenes import Scene, concepts, read_yaml

Token = tuple[str, str]
Entry = Mapping[str, str]

UPOS = frozenset({
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT",
    "SCONJ", "SYM", "VERB", "X",
})  # fmt: skip
# The part of speech of a word that carries none of its own in a data file.
SECTION_TAGS = {
    "role": "NOUN", "name": "PROPN", "verb": "VERB", "object": "NOUN", "object_class": "NOUN",
    "trait": "ADJ", "adjective": "ADJ", "number": "NUM", "place": "NOUN", "time": "NOUN", "words": "X",
    "city": "PROPN", "organisation": "PROPN",
}  # fmt: skip
# What a question may ask, in the keys of a data file's `questions`, and the slot of the clause that answers it.
QUESTIONS = {
    "who": "agent_phrase", "what": "object_phrase", "where": "place", "when": "time", "how_many": "object_phrase.number",
}  # fmt: skip
SLOT_SECTIONS = {"agent": ("role", "name"), "object": ("object", "object_class")}
_REFERENCE = re.compile(r"\{(\w+)(?::([^|}]*))?(?:\|([^}]*))?\}")
_FEATURE = re.compile(r"<(\w+)\.(\w+)>")
_CITY = re.compile(r"\{city(?::(\w+))?\}")


@dataclass(frozen=True, eq=False)
class Language:
    """One language's lexicon and templates, as its data file gives them."""

    code: str
    sections: Mapping[str, Mapping[str, Entry]]
    templates: Mapping[str, Any]
    joiner: str
    attach_next: frozenset[str]
    attach_previous: frozenset[str]
    capitals: Mapping[str, str]
    elision_before: frozenset[str]
    elided: Mapping[str, str]
    answer_without: tuple[str, ...]

    def tokens(self, scene: Scene, *, fronted: bool = False) -> list[Token]:
        """One sentence about the scene; `fronted` opens it with the time, where the scene has one."""
        return self.marked(scene, fronted=fronted)[0]

    def marked(
        self, scene: Scene, *, fronted: bool = False, asking: str | None = None
    ) -> tuple[list[Token], list[str]]:
        """A sentence's tokens and the slot that each fills ("place", "object_phrase.number"), "" if none."""
        clause = _Clause(self, scene)
        tokens = self._finish(clause.ask(asking) if asking else clause.tell(fronted), asking=asking is not None)
        return tokens, clause.slots + [""] * (len(tokens) - len(clause.slots))

    @property
    def asks(self) -> bool:
        """Whether the data file has question templates."""
        return "question" in self.templates

    def question(self, kind: str, scene: Scene) -> list[Token]:
        """A question of one of QUESTIONS about what the scene's other details tell."""
        return self.marked(scene, asking=kind)[0]

    def coordinated(
        self, first: Scene, second: Scene, *, fronted: tuple[bool, bool] = (False, False), asking: str | None = None
    ) -> list[Token]:
        """One sentence that tells two scenes, or asks the same of both, joined by the language's "and"."""
        parts = [
            _Clause(self, scene).ask(asking) if asking else _Clause(self, scene).tell(front)
            for scene, front in zip((first, second), fronted, strict=True)
        ]
        conjunction = _parse_tokens(self.templates["conjunction"], "X", self.code)
        return self._finish([*parts[0], *conjunction, *parts[1]], asking=asking is not None)

    def text(self, tokens: Iterable[Token]) -> str:
        """The tokens as running text, under the language's rule for spaces."""
        return self.placed(tokens)[0]

    def placed(self, tokens: Iterable[Token]) -> tuple[str, list[int]]:
        """The running text and the offset in it at which each token starts."""
        pieces: list[str] = []
        starts: list[int] = []
        end, tight = 0, True
        for form, _ in tokens:
            if not tight and self.joiner and form not in self.attach_previous:
                pieces.append(self.joiner)
                end += len(self.joiner)
            pieces.append(form)
            starts.append(end)
            end += len(form)
            tight = bool(self.attach_next) and form.lower() in self.attach_next
        return "".join(pieces), starts

    def organisation(self, kind: str, city: str) -> list[Token]:
        """The name of an organisation of a kind, made from a city's: `{city}`, or `{city:of}` for its column `of`."""
        before, key, after = _CITY.split(self.entry("organisation", kind)["form"])
        parts = (_parse_tokens(part, "PROPN", self.code) for part in (before, after))
        return [*next(parts), *self.form("city", city, key or "form"), *next(parts)]

    def bare(self, form: str) -> str:
        """The form without the particle that an answer leaves out (`answer_without`), if it ends in one."""
        return next((form.removesuffix(p) for p in self.answer_without if form.endswith(p)), form)

    @property
    def gap(self) -> str:
        """What stands between two sentences of one text."""
        return self.joiner or ("" if _parse_tokens(self.templates["end"], "PUNCT", self.code) else " ")

    def form(self, section: str, concept: str, key: str) -> tuple[Token, ...]:
        """The tokens stored for a concept under `key`, else under the key without its last feature."""
        return _form(self, section, concept, key)

    def entry(self, section: str, concept: str) -> Entry:
        """The stored forms and features of a concept; raises ValueError where the file lacks it."""
        try:
            return self.sections[section][concept]
        except KeyError:
            raise ValueError(
                f"languages/{self.code}.yaml has no word for {concept!r} in section {section!r}: add the line"
            ) from None

    def _finish(self, clause: list[Token], *, asking: bool = False) -> list[Token]:
        for i, ((form, tag), (following, _)) in enumerate(pairwise(clause) if self.elided else ()):
            if form in self.elided and following[0].lower() in self.elision_before:
                clause[i] = (self.elided[form], tag)
        first = next(i for i, (_, tag) in enumerate(clause) if tag != "PUNCT")  # after an opening "¿"
        form, tag = clause[first]
        clause[first] = (self.capitals.get(form[0], form[0].upper()) + form[1:], tag)
        end = self.templates["question"]["end"] if asking else self.templates["end"]
        return [*clause, *_parse_tokens(end, "PUNCT", self.code)]


class _Clause:
    """One scene being told: looks words up by slot and agreement features."""

    def __init__(self, language: Language, scene: Scene) -> None:
        self.language = language
        self.slots: list[str] = []  # of the tokens told so far
        self.scene = scene
        self.fillers = _fillers(scene)
        counted = "counted" if scene.number else "bare"
        number = "negated" if scene.negated else counted
        self.variants = {
            "agent_phrase": self.fillers["agent"][0] + ("-described" if scene.trait else ""),
            "object_phrase": number + ("-described" if scene.adjective else ""),
        }

    def tell(self, fronted: bool) -> list[Token]:
        polarity = "negative" if self.scene.negated else "positive"
        opening = "fronted" if fronted and self.scene.time else "plain"
        return self.expand("clause", f"{opening}-{polarity}")

    def ask(self, kind: str) -> list[Token]:
        return self.expand("question", kind)

    def expand(self, template: str, variant: str) -> list[Token]:
        tokens: list[Token] = []
        for part in _compiled(self.language, template, variant):
            if part.name in self.variants:
                tokens += self.expand(part.name, self.variants[part.name])
                continue
            found = self._resolve(part) if part.name else part.default
            tokens += found
            self.slots += [part.slot] * len(found)
        return tokens

    def _resolve(self, reference: _Reference) -> tuple[Token, ...]:
        name, key = reference.name, reference.key
        if name not in self.fillers and name not in self.language.sections["words"]:
            return reference.default  # a detail that the scene leaves open
        section, concept = self.fillers.get(name, ("words", name))
        return self.language.form(section, concept, _FEATURE.sub(self._feature, key) if "<" in key else key)

    def _feature(self, match: re.Match[str]) -> str:
        section, concept = self.fillers[match[1]]
        return self.language.entry(section, concept).get(match[2], "")


@dataclass(frozen=True)
class _Reference:
    """A place in a template, `{name:key|default}`; a word of the template itself is a default without name."""

    name: str
    key: str
    default: tuple[Token, ...]
    slot: str


@lru_cache(maxsize=4096)
def _fillers(scene: Scene) -> dict[str, tuple[str, str]]:
    """Slot to (section of the data file, concept) for every slot that the scene fills."""
    inventory = concepts()
    details = {d: getattr(scene, d) for d in ("trait", "adjective", "number", "place", "time")}
    filled = {detail: (detail, concept) for detail, concept in details.items() if concept is not None}
    agent = "name" if scene.agent in inventory.names else "role"
    thing = "object_class" if scene.object in inventory.classes else "object"
    core = {"agent": (agent, scene.agent), "verb": ("verb", scene.verb), "object": (thing, scene.object)}
    return filled | core


@cache
def _form(language: Language, section: str, concept: str, key: str) -> tuple[Token, ...]:
    entry = language.entry(section, concept)
    wanted = key
    while wanted not in entry and "-" in wanted:
        wanted = wanted.rpartition("-")[0]
    text = entry.get(wanted, entry.get("form"))
    if text is None:
        raise ValueError(
            f"languages/{language.code}.yaml: {concept!r} in section {section!r} has no form {key!r}, "
            f"only {sorted(entry)}: add the form"
        )
    return _parse_tokens(text, SECTION_TAGS[section], language.code)


@cache
def _parse_tokens(text: str, default_tag: str, code: str) -> tuple[Token, ...]:
    """Words of a data file: "in/ADP dem/DET Park"; "_" is a space inside one token, "~" is no word."""
    tokens: list[Token] = []
    for word in text.split():
        form, slash, tag = word.rpartition("/")
        if slash and tag not in UPOS:
            raise ValueError(f"languages/{code}.yaml: unknown tag in {word!r}: use one of {sorted(UPOS)}")
        if word != "~":
            tokens.append(((form if slash else word).replace("_", " "), tag if slash else default_tag))
    return tuple(tokens)


@cache
def _compiled(language: Language, template: str, variant: str) -> tuple[_Reference, ...]:
    variants = language.templates[template]
    wanted = variant
    while wanted not in variants and "-" in wanted:
        wanted = wanted.rpartition("-")[0]
    text = variants.get(wanted, variants.get("bare"))
    if text is None:
        raise ValueError(f"languages/{language.code}.yaml: templates.{template} has no {variant!r}: add it")
    phrase = template if template.endswith("_phrase") else ""
    parts: list[_Reference] = []
    for word in text.split():
        reference = _REFERENCE.fullmatch(word)
        name, key, default = (reference[1], reference[2], reference[3]) if reference else ("", "", word)
        slot = f"{phrase}.{name}".strip(".")
        parts.append(_Reference(name, key or "form", _parse_tokens(default or "", "X", language.code), slot))
    return tuple(parts)


@cache
def languages() -> tuple[str, ...]:
    """The codes of the languages with a data file, sorted."""
    names = [file.name for file in files(__package__).joinpath("languages").iterdir()]
    return tuple(sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml") and n[0] != "_"))


@cache
def load_language(code: str) -> Language:
    """The language of languages/<code>.yaml, read once per process."""
    raw = read_yaml(f"languages/{code}.yaml")
    spacing = raw["spacing"]
    elision = spacing.get("elision", {"before": "", "words": {}})
    return Language(
        code=code,
        sections={name: _section(raw.get(name, {}), f"{code}.yaml: {name}") for name in SECTION_TAGS},
        templates=raw["templates"] | ({"question": raw["questions"]} if "questions" in raw else {}),
        joiner=" " if spacing["between_tokens"] == "space" else "",
        attach_next=frozenset(spacing.get("attach_next", "").split()),
        attach_previous=frozenset(spacing["attach_previous"].split()),
        capitals=spacing.get("capitals", {}),
        elision_before=frozenset(elision["before"]),
        elided=elision["words"],
        answer_without=tuple(spacing.get("answer_without", "").split()),
    )


def _section(raw: Mapping[str, Any], place: str) -> dict[str, Entry]:
    """A section's lines as entries: cells under the names that its `columns` line gives."""
    columns = [name.strip() for name in raw.get("columns", "form").split("|")]
    entries: dict[str, Entry] = {}
    for concept, line in raw.items():
        cells = line.split("|") if isinstance(line, str) else []
        if cells and len(cells) != len(columns):
            raise ValueError(f"languages/{place}: {concept!r} has {len(cells)} cells, not {len(columns)}")
        entries[concept] = dict(zip(columns, map(str.strip, cells), strict=True)) if cells else line
    entries.pop("columns", None)
    return entries

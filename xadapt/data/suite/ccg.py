r"""CCG: English sentences with the lexical categories of their derivation, in CCGbank's notation.

The categories follow CCGbank's analyses: a noun is N (type-changed to NP where it has no determiner), an adjunct of the verb
phrase (S\NP)\(S\NP), one that opens the sentence S/S, an auxiliary takes the verb phrase that follows it.
One word has several categories: "in" opens the sentence, follows its verb or a noun, "does" negates or asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .grammar import QUESTIONS, Token, load_language
from .scenes import Row, concepts, distinct_scenes, generator

_ADJUNCT = r"(S\NP)\(S\NP)"
_VERB = r"(S[dcl]\NP)/NP"
_BARE_VERB = r"(S[b]\NP)/NP"
_DOES = {"telling": r"(S[dcl]\NP)/(S[b]\NP)", "asking": r"(S[q]/(S[b]\NP))/NP"}
_WORDS = {"the": "NP[nb]/N", "not": _ADJUNCT, "and": "conj", "who": r"S[wq]/(S[dcl]\NP)", "what": "S[wq]/(S[q]/NP)"}
_WORDS |= dict.fromkeys(("where", "when"), "S[wq]/S[q]") | {"?": ".", ".": ".", ",": ","}
_ASKED = tuple(kind for kind in QUESTIONS if kind != "how_many")


def ccg(lang: str, split: str) -> Iterator[Row]:
    """Rows with tokens and tags; some sentences are questions, some have two clauses."""
    language = load_language(lang)
    rng = generator("suite", "ccg", split)
    scenes = distinct_scenes(rng, split)
    for scene in scenes:
        fronted, kind = rng.random() < 0.4, rng.random()
        if kind < 0.2 and not scene.negated:
            tokens, slots = language.marked(scene, asking=rng.choice(_ASKED))
        elif kind < 0.5:
            second, order = next(scenes), (fronted, rng.random() < 0.4)
            tokens = language.coordinated(scene, second, fronted=order)
            parts = [language.marked(s, fronted=f)[1] for s, f in zip((scene, second), order, strict=True)]
            slots = [*parts[0], *parts[1]]  # the first one's full stop gives its place to the conjunction
        else:
            tokens, slots = language.marked(scene, fronted=fronted)
            if scene.place and scene.agent not in concepts().names and rng.random() < 0.5:
                # "to the market" is no noun's adjunct
                directed = "place" in language.entry("verb", scene.verb)
                tokens, slots = (tokens, slots) if directed else _attached(tokens, slots)
        yield {"tokens": [form for form, _ in tokens], "tags": categories(tokens, slots)}


def _attached(tokens: list[Token], slots: list[str]) -> tuple[list[Token], list[str]]:
    """The sentence with its place behind its agent: a noun's adjunct instead of the verb's."""
    behind = max(i for i, slot in enumerate(slots) if slot.startswith("agent_phrase")) + 1
    place = [i for i, slot in enumerate(slots) if slot == "place"]
    rest = [i for i in range(behind, len(slots)) if i not in place]
    moved = [tokens[i] for i in (*range(behind), *place, *rest)]
    return moved, [*slots[:behind], *["attached"] * len(place), *(slots[i] for i in rest)]


def categories(tokens: Sequence[Token], slots: Sequence[str]) -> list[str]:
    """The category of each token, from its slot and the words before it in its clause."""
    mode = "asking" if tokens[-1][0] == "?" else "telling"
    found: list[str] = []
    clause: set[str] = set()  # slots and auxiliaries so far: an adjunct before them is the sentence's
    for i, (form, _) in enumerate(tokens):
        word, slot = form.lower(), slots[i]
        if slot == "verb":
            found.append(_BARE_VERB if "does" in clause else _VERB)
        elif word == "does":
            found.append(_DOES[mode])
        elif slot in ("place", "time", "attached"):
            verbal = f"({_ADJUNCT})/NP" if clause & {"verb", "does"} else "(S/S)/NP"
            found.append(_in_adjunct(slots, i, word, r"(NP\NP)/NP" if slot == "attached" else verbal))
        else:
            found.append(_WORDS.get(word) or _nominal(slots, i))
        clause = set() if word == "and" else clause | {slot, word if word == "does" else ""}
    return found


def _in_adjunct(slots: Sequence[str], i: int, word: str, preposition: str) -> str:
    if i == 0 or slots[i - 1] != slots[i]:
        return preposition
    return _WORDS.get(word, "N")


def _nominal(slots: Sequence[str], i: int) -> str:
    """The last word of a noun phrase is its noun, those before it modify it."""
    phrase = slots[i].partition(".")[0]
    return "N/N" if i + 1 < len(slots) and slots[i + 1].partition(".")[0] == phrase else "N"

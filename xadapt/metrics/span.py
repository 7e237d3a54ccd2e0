"""Exact match and F1 of answers to questions, by SQuAD's rules and by MLQA's.

Predictions are answer strings, or None where a question was left unanswered, which scores 0. References hold the
gold answers of each question; the best one counts. A question without gold answers, or with blank ones only, has no
answer, as in SQuAD 2.0: the prediction is right if it is empty, too.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from xadapt.errors import unknown
from xadapt.metrics.sums import Sums, exact_sum

Answers = Sequence[str]
Normalise = Callable[[str], str]
Score = Callable[[str, str], float]

ENGLISH_ARTICLES = "a an the"
# The words that facebookresearch/MLQA's mlqa_evaluation_v1.py drops, by context language.
MLQA_ARTICLES = {
    "en": ENGLISH_ARTICLES,
    "es": "un una unos unas el la los las",
    "hi": "",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "ar": "",
    "zh": "",
}
_HAN = re.compile("([\u4e00-\u9fa5])")


def exact_match_sums(
    predictions: Sequence[str | None], references: Sequence[Answers], labels: Sequence[str] = (), *, lang: str = "en"
) -> Sums:
    """How many answers equal a gold answer after SQuAD's normalisation, and how many questions there are.

    The normalisation is English in every language, as XTREME scores xquad and tydiqa. Source: SQuAD v1.1's script.
    """
    return _sums(predictions, references, _equal, squad_normalised)


def span_overlap_f1_sums(
    predictions: Sequence[str | None], references: Sequence[Answers], labels: Sequence[str] = (), *, lang: str = "en"
) -> Sums:
    """F1 between the tokens of prediction and gold answer after SQuAD's normalisation, summed; and the questions."""
    return _sums(predictions, references, token_f1, squad_normalised)


def mlqa_exact_match_sums(
    predictions: Sequence[str | None], references: Sequence[Answers], labels: Sequence[str] = (), *, lang: str = "en"
) -> Sums:
    """How many answers equal a gold answer after MLQA's normalisation, and how many questions there are.

    lang is the language of the context. Raises UserError for a language that MLQA does not have.
    """
    return _sums(predictions, references, _equal, partial(mlqa_normalised, lang=lang))


def mlqa_f1_sums(
    predictions: Sequence[str | None], references: Sequence[Answers], labels: Sequence[str] = (), *, lang: str = "en"
) -> Sums:
    """F1 between the tokens of prediction and gold answer after MLQA's normalisation, summed; and the questions.

    lang is the language of the context. Raises UserError for a language that MLQA does not have.
    """
    return _sums(predictions, references, token_f1, partial(mlqa_normalised, lang=lang))


def squad_normalised(text: str) -> str:
    """Tokens joined by spaces: lower case, without ASCII punctuation and English articles, split on white space."""
    kept = "".join(char for char in text.lower() if char not in string.punctuation)
    return _joined(_without(kept, ENGLISH_ARTICLES))


def mlqa_normalised(text: str, *, lang: str) -> str:
    """Tokens joined by spaces, by MLQA's rules for the language of the context.

    Lower case, without punctuation of any script and the language's articles; Chinese characters are a token each.
    Raises UserError for a language that MLQA does not have.
    """
    if lang not in MLQA_ARTICLES:
        raise unknown("language", lang, MLQA_ARTICLES, place="MLQA's metrics")
    kept = "".join(char for char in text.lower() if not _is_punctuation(char))
    if lang == "ar":
        # MLQA's pattern takes these two letters for the article wherever they stand, inside words, too
        kept = kept.replace("ال", " ")
    if lang == "zh":
        kept = _HAN.sub(r" \1 ", kept)
    return _joined(_without(kept, MLQA_ARTICLES[lang]))


def token_f1(prediction: str, reference: str) -> float:
    """F1 between two normalised answers as bags of tokens, 0 to 1; 0 where either has none."""
    ours, theirs = prediction.split(), reference.split()
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def _sums(predictions: Sequence[str | None], references: Sequence[Answers], score: Score, normalise: Normalise) -> Sums:
    pairs = zip(predictions, references, strict=True)
    return exact_sum(_best(prediction, answers, score, normalise) for prediction, answers in pairs), len(references)


def _best(prediction: str | None, answers: Answers, score: Score, normalise: Normalise) -> float:
    if prediction is None:
        return 0.0
    ours, golds = normalise(prediction), [answer for answer in answers if answer.strip()]
    if not golds:
        return float(not ours)
    return max(score(ours, normalise(gold)) for gold in golds)


def _equal(prediction: str, reference: str) -> float:
    return float(prediction == reference)


def _without(text: str, words: str) -> str:
    return re.sub(rf"\b(?:{words.replace(' ', '|')})\b", " ", text) if words else text


def _joined(text: str) -> str:
    return " ".join(text.split())


def _is_punctuation(char: str) -> bool:
    # ASCII's symbols, such as $ and +, are no punctuation to Unicode but are to both scripts
    return char in string.punctuation or unicodedata.category(char).startswith("P")

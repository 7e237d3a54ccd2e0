"""Guessing without understanding: the learners behind the baselines of the embedded suite."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from xadapt.data.suite.scenes import Row

Example = tuple[list[str], str]  # features or tokens, and a label
Tagged = tuple[list[str], list[str]]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def scorer(train: Iterable[Example]) -> Callable[[str, list[str]], float]:
    """The log-likelihood of features under a label: multinomial naive Bayes with add-one smoothing."""
    counts: dict[str, Counter[str]] = {}
    for features, label in train:
        counts.setdefault(label, Counter()).update(features)
    vocabulary = set().union(*counts.values())
    totals = {label: bag.total() + len(vocabulary) for label, bag in counts.items()}
    return lambda label, features: sum(math.log((counts[label][f] + 1) / totals[label]) for f in features)


def bayes(train: Sequence[Example], test: Sequence[Example]) -> float:
    """Accuracy in points of naive Bayes over (features, label) examples."""
    score = scorer(train)
    labels = sorted({label for _, label in train})
    return 100 * sum(max(labels, key=lambda label: score(label, f)) == gold for f, gold in test) / len(test)


def shared_positions(first: str, second: str) -> list[str]:
    a, b = words(first), words(second)
    overlap = sum((Counter(a) & Counter(b)).values())
    kept = sum(x == y for x, y in zip(a, b, strict=False))
    return [f"overlap{overlap - len(b)}", f"kept{kept * 4 // len(b)}", f"first{a[0] == b[0]}", f"last{a[-1] == b[-1]}"]


PAIR_FEATURES: dict[str, Callable[[str, str], list[str]]] = {
    "first side": lambda a, b: words(a),
    "second side": lambda a, b: words(b),
    "bag": lambda a, b: words(a) + words(b),
    "marked bag": lambda a, b: ["a:" + w for w in words(a)] + ["b:" + w for w in words(b)],
    "positions": lambda a, b: [f"{i}:{w}" for i, w in enumerate(words(b))],
    "lengths": lambda a, b: [f"a{len(a)}", f"b{len(b)}", f"a{len(words(a))}words", f"b{len(words(b))}words"],
    "difference of lengths": lambda a, b: [f"d{len(words(a)) - len(words(b))}"],
    "shared positions": shared_positions,
}


def sentences(text: str) -> list[str]:
    return text.rstrip(".").split(". ")


def best_sentence(passage: str, question: str) -> int:
    """The first sentence of those with most words of the question."""
    asked = set(words(question))
    shared = [len(asked & set(words(sentence))) for sentence in sentences(passage)]
    return shared.index(max(shared))


def missing(passage: str, question: str) -> int:
    """How many words of the question the best sentence lacks."""
    return len(set(words(question)) - set(words(sentences(passage)[best_sentence(passage, question)])))


def overlap(prompt: str, choice: str) -> tuple[float, int]:
    """The share of a choice's words that the prompt has; the shorter of equals."""
    return sum(word in words(prompt) for word in words(choice)) / len(words(choice)), -len(choice)


def commonest_tags(rows: Iterable[Tagged]) -> tuple[str, dict[str, str]]:
    """The commonest tag of all, and of each word."""
    of_word: dict[str, Counter[str]] = defaultdict(Counter)
    for tokens, tags in rows:
        for token, tag in zip(tokens, tags, strict=True):
            of_word[token.lower()][tag] += 1
    total = sum(of_word.values(), Counter[str]())
    return total.most_common(1)[0][0], {word: counts.most_common(1)[0][0] for word, counts in of_word.items()}


def trigrams(text: str) -> set[str]:
    padded = f" {text.lower()} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def nearest(queries: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Each query's text with the heaviest shared character trigrams; the rarer a trigram, the more it weighs."""
    holders: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        for trigram in trigrams(text):
            holders[trigram].append(i)
    found = []
    for query in queries:
        scores = [0.0] * len(texts)
        for trigram in sorted(trigrams(query)):
            for i in holders.get(trigram, ()):
                scores[i] += math.log(len(texts) / len(holders[trigram]))
        found.append(scores.index(max(scores)))
    return found


def choices_of(row: Row) -> tuple[list[str], int]:
    """The choices of a multiple choice row and the index of the right one."""
    if "endings" in row:
        return row["endings"], int(row["label"])
    if "choices" in row:
        return row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
    return [row[f"answer{i}"] for i in range(4)], row["label"]

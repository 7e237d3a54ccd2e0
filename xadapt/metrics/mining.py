"""F1 of mined sentence pairs."""

from collections.abc import Iterable, Sequence

from xadapt.metrics.agreement import Agreement

Pair = tuple[str, str]


def mining_f1(
    predictions: Sequence[Pair], references: Sequence[Pair], labels: Sequence[str] = (), *, lang: str = "en"
) -> float:
    """F1 over the sets of id pairs, in points; unlike elsewhere the two need not be equally long.

    A pair is right if both ids are. Source: BUCC 2018's shared task, as XTREME scores it.
    """
    return pair_agreement(predictions, references).f1


def pair_agreement(predictions: Iterable[Pair], references: Iterable[Pair]) -> Agreement:
    """Count pairs of ids, each once."""
    found, true = set(map(tuple, predictions)), set(map(tuple, references))
    return Agreement(len(found & true), len(found), len(true))

"""F1 of mined sentence pairs."""

from collections.abc import Iterable, Sequence

from xadapt.metrics.agreement import Agreement
from xadapt.metrics.sums import Sums

Pair = tuple[str, str]


def mining_f1_sums(
    predictions: Sequence[Pair], references: Sequence[Pair], labels: Sequence[str] = (), *, lang: str = "en"
) -> Sums:
    """What F1 over the sets of id pairs is made of; unlike elsewhere the two need not be equally long.

    A pair counts once and is right if both ids are; sums of blocks are no language's. Source: BUCC 2018's shared task,
    as XTREME scores it.
    """
    return pair_agreement(predictions, references).sums


def pair_agreement(predictions: Iterable[Pair], references: Iterable[Pair]) -> Agreement:
    """Count pairs of ids, each once."""
    found, true = set(map(tuple, predictions)), set(map(tuple, references))
    return Agreement(len(found & true), len(found), len(true))

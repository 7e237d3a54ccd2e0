"""XTREME's F1 of part-of-speech tags: seqeval over runs of equal tags, as seqeval 0.0.12 counted them."""

from collections.abc import Sequence


def legacy_tag_f1(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]], labels: Sequence[str], *,
    lang: str = "en",
) -> float:  # fmt: skip
    """Micro F1 over chunks, a chunk being a run of equal tags, in points.

    XTREME gives raw tags to seqeval. Version 0.0.12 keeps whole tag names; from 1.0 the first letter is taken
    for a chunk prefix, and CCONJ and SCONJ fall together. Adding the prefix that 0.0.12 assumed makes the
    current version count as the old one.
    """
    from seqeval.metrics import f1_score

    return 100 * float(f1_score(_chunks(references, labels), _chunks(predictions, labels)))


def legacy_prefixed(tag: str) -> str:
    """A raw tag with the chunk prefix that seqeval 0.0.12 took it to have: its first letter, or I."""
    return f"{tag[0] if tag[0] in 'BIES' else 'I'}-{tag}"


def _chunks(rows: Sequence[Sequence[int]], labels: Sequence[str]) -> list[list[str]]:
    mapped = [legacy_prefixed(tag) for tag in labels]
    return [[mapped[tag] for tag in row] for row in rows]

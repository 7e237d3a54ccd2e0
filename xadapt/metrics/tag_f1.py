"""XTREME's F1 of part-of-speech tags: chunks that are runs of equal tags, as seqeval 0.0.12 counted them."""

from collections.abc import Sequence

from xadapt.metrics.chunks import chunk_agreement
from xadapt.metrics.sums import Sums

SEQEVAL_VERSION = "0.0.12"  # whose reading of raw tags XTREME's published numbers rest on


def legacy_tag_f1_sums(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]], labels: Sequence[str], *,
    lang: str = "en",
) -> Sums:  # fmt: skip
    """What micro F1 over chunks is made of, a chunk being a run of equal tags.

    XTREME gives raw tags to seqeval. Version 0.0.12 keeps whole tag names; from 1.0 the first letter is taken
    for a chunk prefix, and CCONJ and SCONJ fall together. The prefix that 0.0.12 assumed makes any counting of
    chunks count as the old one.
    """
    return chunk_agreement(_chunks(predictions, labels), _chunks(references, labels)).sums


def legacy_prefixed(tag: str) -> str:
    """A raw tag with the chunk prefix that seqeval 0.0.12 took it to have: its first letter, or I."""
    return f"{tag[0] if tag[0] in 'BIES' else 'I'}-{tag}"


def _chunks(rows: Sequence[Sequence[int]], labels: Sequence[str]) -> list[list[str]]:
    mapped = [legacy_prefixed(tag) for tag in labels]
    return [[mapped[tag] for tag in row] for row in rows]

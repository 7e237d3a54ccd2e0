"""F1 over chunks: named entities by their tags' prefixes, counted as seqeval counts them."""

from collections.abc import Iterator, Sequence

from xadapt.metrics.agreement import Agreement
from xadapt.metrics.sums import Sums

Chunk = tuple[str, int, int]
OUTSIDE = "O"


def span_f1_sums(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]], labels: Sequence[str], *,
    lang: str = "en",
) -> Sums:  # fmt: skip
    """What micro F1 over typed chunks is made of: seqeval's default mode, which PAN-X is scored by.

    predictions and references hold one list of label ids a sentence. Raises ValueError if two lists differ in
    length. A chunk is right if its type and both ends are.
    """
    return chunk_agreement(_named(predictions, labels), _named(references, labels)).sums


def chunk_agreement(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Agreement:
    """Count the chunks in sentences of prefixed tags (`B-PER`, `I-PER`, `O`), over all sentences together.

    Raises ValueError if numbers of sentences, or of tags in one, differ.
    """
    common = found = true = 0
    for predicted, reference in zip(predictions, references, strict=True):
        if len(predicted) != len(reference):
            raise ValueError(f"inconsistent numbers of tags: {len(predicted)} predicted, {len(reference)} true")
        ours, theirs = set(chunks(predicted)), set(chunks(reference))
        common, found, true = common + len(ours & theirs), found + len(ours), true + len(theirs)
    return Agreement(common, found, true)


def chunks(tags: Sequence[str]) -> Iterator[Chunk]:
    """Each chunk of one sentence as type, first position and the one after its last.

    The rules are those of conlleval, which seqeval follows from 0.0.12 to 1.2.2: an I- that follows no tag of its
    type opens a chunk as a B- would. E- and S- of the IOBES scheme end one.
    """
    start, previous = 0, OUTSIDE
    for at, tag in enumerate([*tags, OUTSIDE]):
        if not _continues(previous, tag):
            if previous != OUTSIDE:
                yield previous[2:], start, at
            start = at
        previous = tag


def _continues(previous: str, tag: str) -> bool:
    return previous[0] in "BI" and tag[0] in "IE" and previous[2:] == tag[2:]


def _named(rows: Sequence[Sequence[int]], labels: Sequence[str]) -> list[list[str]]:
    return [[labels[tag] for tag in row] for row in rows]

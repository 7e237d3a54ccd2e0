"""How a kind of task becomes tensors and back: one file a format, one protocol for all."""

from xadapt.formats.classification import ClassificationFormat
from xadapt.formats.features import Features, Format
from xadapt.formats.retrieval import RetrievalFormat
from xadapt.formats.tagging import TaggingFormat

FORMATS: dict[str, Format] = {
    "classification": ClassificationFormat(),
    "tagging": TaggingFormat(),
    "retrieval": RetrievalFormat(),
}

__all__ = ["FORMATS", "Features", "Format"]

"""How a kind of task becomes tensors and back: one file a format, one protocol for all."""

from xadapt.formats.choice import ChoiceFormat
from xadapt.formats.classification import ClassificationFormat
from xadapt.formats.features import Features, Format
from xadapt.formats.mining import MiningFormat
from xadapt.formats.mlm import MlmFormat
from xadapt.formats.retrieval import RetrievalFormat
from xadapt.formats.span import SpanFormat
from xadapt.formats.tagging import TaggingFormat

FORMATS: dict[str, Format] = {
    "classification": ClassificationFormat(),
    "tagging": TaggingFormat(),
    "span": SpanFormat(),
    "choice": ChoiceFormat(),
    "mining": MiningFormat(),
    "retrieval": RetrievalFormat(),
    "mlm": MlmFormat(),
}

__all__ = ["FORMATS", "Features", "Format"]

"""Target tasks of XTREME (Hu et al. 2020), under XTREME's names, with the languages XTREME evaluates."""

from xadapt.tasks.intermediate import NLI_LABELS
from xadapt.tasks.spec import HubSource, Optimisation, Task

UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM",
    "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


XNLI = Task(
    name="xnli",
    role="target",
    format="classification",
    description="natural language inference in fifteen languages; trains on mnli",
    languages=_codes("ar bg de el en es fr hi ru sw th tr ur vi zh"),
    hub=HubSource(dataset="facebook/xnli", config="{lang}", licence="CC BY-NC 4.0"),
    mirror="xnli/{lang}",
    columns={"text_a": "premise", "text_b": "hypothesis", "label": "label"},
    labels=NLI_LABELS,
    source_labels=NLI_LABELS,
    splits={"validation": ("validation",), "test": ("test",)},
    train_on="mnli",
    metrics=("accuracy",),
    optimisation={
        "full": Optimisation(learning_rate=2e-5, num_train_epochs=2),
        "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=10),
    },
    citation="Conneau et al. 2018, XNLI: Evaluating Cross-lingual Sentence Representations",
    notes=(
        "2,490 validation and 5,010 test pairs a language",
        "the train split of facebook/xnli is machine-translated MNLI: training here is English MNLI itself",
    ),
)

UDPOS = Task(
    name="udpos",
    role="target",
    format="tagging",
    description="universal part-of-speech tags in 33 languages",
    languages=_codes(
        "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"
    ),
    hub=HubSource(dataset="google/xtreme", config="udpos.{name}", licence="CC BY-SA / CC BY-NC-SA by treebank"),
    mirror="udpos/udpos.{name}",
    columns={"tokens": "tokens", "tags": "pos_tags"},
    labels=UPOS,
    source_labels=UPOS,
    splits={"train": ("train",), "validation": ("validation",), "test": ("test",)},
    metrics=("f1", "accuracy"),
    optimisation={
        "full": Optimisation(learning_rate=2e-5, num_train_epochs=10),
        "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=10),
    },
    citation="Nivre et al. 2018, Universal Dependencies 2.2",
    notes=(
        "21,253 English training sentences; 47 to 20,436 test sentences a language",
        "google/xtreme chose treebanks by substring: Greek holds Ancient Greek, Chinese holds Classical Chinese, "
        "and French, German and Russian are mixed likewise; no column tells them apart, English is clean",
        "f1 is XTREME's number (chunks of equal tags); accuracy is the share of words tagged right",
    ),
)

TATOEBA = Task(
    name="tatoeba",
    role="target",
    format="retrieval",
    description="find each English sentence's translation among up to 1,000, in 36 languages; no training",
    languages=_codes(
        "af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr nl pt ru sw ta te th tl tr ur vi zh"
    ),
    hub=HubSource(dataset="google/xtreme", config="tatoeba.{iso3}", licence="CC BY 2.0 FR"),
    mirror="tatoeba/tatoeba.{iso3}",
    columns={"source": "source_sentence", "target": "target_sentence"},
    splits={"test": ("validation", "test")},
    metrics=("accuracy",),
    max_seq_length=512,
    citation="Artetxe and Schwenk 2019, Massively Multilingual Sentence Embeddings",
    notes=(
        "sentences on the hub end in a newline, which is stripped",
        "sensitive to the layer: 14 of 24 or 8 of 12 as in XTREME's script, --retrieval-layer overrides",
    ),
)

XTREME_TASKS = (XNLI, UDPOS, TATOEBA)

"""Target tasks of XTREME (Hu et al. 2020), under XTREME's names, with the languages XTREME evaluates."""

from xadapt.tasks.intermediate import NLI_LABELS, QUESTION, SQUAD_COLUMNS
from xadapt.tasks.revisions import pinned
from xadapt.tasks.spec import HubSource, Optimisation, Task

UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM",
    "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip

NER = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


XNLI = Task(
    name="xnli",
    role="target",
    format="classification",
    description="natural language inference in fifteen languages; trains on mnli",
    languages=_codes("ar bg de el en es fr hi ru sw th tr ur vi zh"),
    hub=pinned("facebook/xnli", config="{lang}", licence="CC BY-NC 4.0"),
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

PAWSX = Task(
    name="pawsx",
    role="target",
    format="classification",
    description="do two sentences of high word overlap mean the same, in seven languages",
    languages=_codes("de en es fr ja ko zh"),
    hub=pinned(
        "google-research-datasets/paws-x",
        config="{lang}",
        licence="free for any purpose, acknowledgement asked",
    ),
    mirror="pawsx/{lang}",
    columns={"text_a": "sentence1", "text_b": "sentence2", "label": "label"},
    labels=("different", "paraphrase"),
    source_labels=("different", "paraphrase"),
    aliases={"0": "different", "1": "paraphrase"},
    splits={"train": ("train",), "validation": ("validation",), "test": ("test",)},
    skip={"text_a": ("NS", ""), "text_b": ("NS", "")},
    metrics=("accuracy",),
    optimisation={
        "full": Optimisation(learning_rate=2e-5, num_train_epochs=5),
        "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=10),
    },
    citation="Yang et al. 2019, PAWS-X: A Cross-lingual Adversarial Dataset for Paraphrase Identification",
    notes=(
        "49,401 English training pairs; 2,000 validation and 2,000 test pairs a language",
        'pairs that were not translated ("NS" or empty) are left out and counted',
        "google/xtreme's copy lost rows to quoting and is not used",
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
    hub=pinned("google/xtreme", config="udpos.{name}", licence="CC BY-SA / CC BY-NC-SA by treebank"),
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
    hub=pinned("google/xtreme", config="tatoeba.{iso3}", licence="CC BY 2.0 FR"),
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


PANX = Task(
    name="panx",
    role="target",
    format="tagging",
    description="persons, organisations and locations in forty languages",
    languages=_codes(
        "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl tr "
        "ur vi yo zh"
    ),
    hub=pinned("google/xtreme", config="PAN-X.{lang}", licence="not stated"),
    mirror="panx/PAN-X.{lang}",
    columns={"tokens": "tokens", "tags": "ner_tags"},
    labels=NER,
    source_labels=NER,
    splits={"train": ("train",), "validation": ("validation",), "test": ("test", "validation")},
    metrics=("span_f1",),
    optimisation={
        "full": Optimisation(learning_rate=2e-5, num_train_epochs=10),
        "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=10),
    },
    citation="Pan et al. 2017, Cross-lingual Name Tagging and Linking for 282 Languages; Rahimi et al. 2019's splits",
    notes=(
        "20,000 English training sentences; 1,000 to 10,000 test sentences a language",
        "XTREME's own download strips the test labels: where a source has no test split, validation stands for it",
    ),
)

XQUAD = Task(
    name="xquad",
    role="target",
    format="span",
    description="SQuAD's questions, translated into eleven languages; trains on squad",
    languages=_codes("ar de el en es hi ru th tr vi zh"),
    hub=pinned("google/xquad", config="xquad.{lang}", licence="CC BY-SA 4.0"),
    mirror="xquad/xquad.{lang}",
    columns=SQUAD_COLUMNS,
    splits={"test": ("validation", "test")},
    train_on="squad",
    metrics=("f1", "exact_match"),
    max_seq_length=384,
    optimisation=QUESTION,
    citation="Artetxe et al. 2020, On the Cross-lingual Transferability of Monolingual Representations",
    notes=("1,190 questions a language, all of them test; the checkpoint is selected on squad's validation split",),
)

MLQA = XQUAD.model_copy(
    update={
        "name": "mlqa",
        "description": "questions and contexts of Wikipedia in seven languages, each language by itself; trains on squad",
        "languages": _codes("ar de en es hi vi zh"),
        "hub": pinned("google/xtreme", config="MLQA.{lang}.{lang}", licence="CC BY-SA 3.0"),
        "mirror": "mlqa/MLQA.{lang}.{lang}",
        "splits": {"test": ("test", "validation")},
        "metrics": ("mlqa_f1", "mlqa_exact_match"),
        "citation": "Lewis et al. 2020, MLQA: Evaluating Cross-lingual Extractive Question Answering",
        "notes": (
            "4,517 to 11,590 test questions a language",
            "normalised by MLQA's own rules: all punctuation, articles of the language, Chinese by character",
        ),
    }
)

TYDIQA = Task(
    name="tydiqa",
    role="target",
    format="span",
    description="information-seeking questions in nine languages, gold passage given",
    languages=_codes("ar bn en fi id ko ru sw te"),
    hub=pinned("google/xtreme", config="tydiqa", licence="Apache-2.0", id_prefix="{lower}-"),
    mirror="tydiqa_goldp/tydiqa.{lang}",
    columns=SQUAD_COLUMNS,
    splits={"train": ("train[:90%]",), "validation": ("train[90%:]",), "test": ("validation",)},
    metrics=("f1", "exact_match"),
    max_seq_length=384,
    max_skipped=1.0,
    optimisation=QUESTION,
    citation="Clark et al. 2020, TyDi QA: A Benchmark for Information-Seeking Question Answering",
    notes=(
        "3,696 English training questions, a tenth of them held out for selection since the validation split is "
        "XTREME's test; 113 to 921 test questions a language",
        "the hub's config mixes the nine languages: rows are told apart by the language's name in their id",
        "the hub's contexts lost the white space at their start after the offsets were counted, which a quarter of the "
        "rows shows: answers are looked for before their offsets, and training leaves out what is not found",
    ),
)

BUCC2018 = Task(
    name="bucc2018",
    role="target",
    format="mining",
    description="mine translations out of two large sets of sentences, four languages with English; no training",
    languages=_codes("de fr ru zh"),
    hub=HubSource(
        dataset="", config="", licence="not stated",
        elsewhere="the hub's copies hold gold pairs without the distractors; XTREME's own download has the whole "
        "sides, with dev gold: --data xtreme:FOLDER",
    ),
    mirror="bucc18/bucc18.{lang}",
    columns={"side": "side", "id": "id", "text": "text", "gold": "gold"},
    splits={"validation": ("validation",), "test": ("test",)},
    metrics=("f1",),
    max_seq_length=512,
    citation="Zweigenbaum et al. 2018, Overview of the Third BUCC Shared Task",
    notes=(
        "1,896 to 14,330 gold pairs a language; google/xtreme's bucc18 holds these pairs only and is no mining problem",
        "the threshold is chosen on validation and applied to test; caps on rows do not cut the sides",
        "a folder with mining_<lang>, mining_en and mining_gold Parquet files stands for a split it does not have",
    ),
)  # fmt: skip

XTREME_TASKS = (XNLI, PAWSX, UDPOS, PANX, XQUAD, MLQA, TYDIQA, BUCC2018, TATOEBA)

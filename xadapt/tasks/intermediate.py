"""English intermediate tasks (Phang et al. 2020, table 1)."""

from xadapt.languages import LANGUAGES
from xadapt.tasks.revisions import pinned
from xadapt.tasks.spec import HubSource, Optimisation, Part, Task, Translation

NLI_LABELS = ("entailment", "neutral", "contradiction")
PAIR = {
    "full": Optimisation(learning_rate=2e-5, num_train_epochs=2),
    "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=10),
}
QUESTION = {
    "full": Optimisation(learning_rate=3e-5, num_train_epochs=2),
    "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=10),
}
SQUAD_COLUMNS = {"id": "id", "context": "context", "question": "question", "answers": "answers"}
_MNLI_SPLITS = ("validation_matched", "validation")

MNLI = Task(
    name="mnli",
    role="intermediate",
    format="classification",
    description="does the premise entail, contradict or leave open the hypothesis",
    languages=("en",),
    hub=pinned("nyu-mll/glue", config="mnli", licence="OANC, CC-BY-SA-3.0, CC-BY-3.0 by genre"),
    mirror="mnli",
    columns={"text_a": "premise", "text_b": "hypothesis", "label": "label"},
    labels=NLI_LABELS,
    source_labels=NLI_LABELS,
    splits={"train": ("train",), "validation": _MNLI_SPLITS},
    translated=Translation(
        hub=pinned("facebook/xnli", config="{lang}", licence="CC BY-NC 4.0"),
        mirror="xnli/{lang}",
        splits={"train": ("train",)},
        languages=("ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"),
    ),
    metrics=("accuracy",),
    optimisation=PAIR,
    citation="Williams et al. 2018, A Broad-Coverage Challenge Corpus for Sentence Understanding through Inference",
    notes=(
        "392,702 train, 9,815 matched and 9,832 mismatched validation pairs",
        "the train splits of XNLI are its machine translations: mnli@de trains on German, mnli@de+ru on both",
    ),
)

ANLI = MNLI.model_copy(
    update={
        "name": "anli",
        "description": "ANLI+: SNLI, MNLI and the three rounds of adversarial NLI, one shared head",
        "hub": pinned("facebook/anli", config="plain_text", licence="CC BY-NC 4.0"),
        "mirror": "anli",
        "translated": None,
        "splits": {
            "train": ("train_r1+train_r2+train_r3",),
            "validation": ("dev_r1+dev_r2+dev_r3",),
        },
        "more": (
            Part(
                hub=pinned("stanfordnlp/snli", config="plain_text", licence="CC BY-SA 4.0"),
                mirror="snli",
                splits={"train": ("train",), "validation": ("validation",)},
            ),
            Part(hub=MNLI.hub, mirror="mnli", splits={"train": ("train",), "validation": _MNLI_SPLITS}),
        ),
        "skip": {"label": (-1,)},
        "citation": "Nie et al. 2020, Adversarial NLI: A New Benchmark for Natural Language Understanding",
        "notes": (
            "1,104,934 train and 22,857 validation pairs; any first rows hold the parts in proportion",
            "SNLI's pairs without a gold label (-1) are left out and counted",
        ),
    }
)

QQP = Task(
    name="qqp",
    role="intermediate",
    format="classification",
    description="do two questions ask the same",
    languages=("en",),
    hub=pinned("nyu-mll/glue", config="qqp", licence="Quora's terms of service, non-commercial"),
    mirror="qqp",
    columns={"text_a": "question1", "text_b": "question2", "label": "label"},
    labels=("not_duplicate", "duplicate"),
    source_labels=("not_duplicate", "duplicate"),
    splits={"train": ("train",), "validation": ("validation",)},
    metrics=("accuracy",),
    optimisation=PAIR,
    citation="Iyer et al. 2017, First Quora Dataset Release: Question Pairs",
    notes=("363,846 train and 40,430 validation pairs; the test labels are hidden",),
)

SQUAD = Task(
    name="squad",
    role="intermediate",
    format="span",
    description="the span of a Wikipedia paragraph that answers a question (SQuAD 1.1)",
    languages=("en",),
    hub=pinned("rajpurkar/squad", config="plain_text", licence="CC BY-SA 4.0"),
    mirror="squad",
    columns=SQUAD_COLUMNS,
    splits={"train": ("train",), "validation": ("validation",)},
    metrics=("f1", "exact_match"),
    max_seq_length=384,
    optimisation=QUESTION,
    citation="Rajpurkar et al. 2016, SQuAD: 100,000+ Questions for Machine Comprehension of Text",
    notes=("87,599 train and 10,570 validation questions",),
)

SQUAD_V2 = SQUAD.model_copy(
    update={
        "name": "squad_v2",
        "description": "SQuAD 1.1 and questions without an answer",
        "hub": pinned("rajpurkar/squad_v2", config="squad_v2", licence="CC BY-SA 4.0"),
        "mirror": "squad_v2",
        "no_answer": True,
        "citation": "Rajpurkar et al. 2018, Know What You Don't Know: Unanswerable Questions for SQuAD",
        "notes": ("130,319 train and 11,873 validation questions; empty answers mean unanswerable",),
    }
)

HELLASWAG = Task(
    name="hellaswag",
    role="intermediate",
    format="choice",
    description="which of four endings continues the scene",
    languages=("en",),
    hub=pinned("Rowan/hellaswag", config="data", licence="MIT"),
    mirror="hellaswag",
    columns={"prompt": "ctx_a", "stem": "ctx_b", "choices": "endings", "label": "label"},
    labels=("0", "1", "2", "3"),
    source_labels=("0", "1", "2", "3"),
    splits={"train": ("train",), "validation": ("validation",)},
    metrics=("accuracy",),
    max_seq_length=256,
    optimisation=PAIR,
    citation="Zellers et al. 2019, HellaSwag: Can a Machine Really Finish Your Sentence?",
    notes=("39,905 train and 10,042 validation scenes; labels are strings",),
)

COSMOS_QA = Task(
    name="cosmos_qa",
    role="intermediate",
    format="choice",
    description="which of four answers to a question about a narrative is plausible",
    languages=("en",),
    hub=pinned(
        "allenai/cosmos_qa", config="default", licence="CC BY 4.0", branch="refs/convert/parquet"
    ),
    mirror="cosmos_qa",
    columns={
        "prompt": "context", "stem": "question", "choices": "answer0|answer1|answer2|answer3", "label": "label"
    },
    labels=("0", "1", "2", "3"),
    source_labels=("0", "1", "2", "3"),
    splits={"train": ("train",), "validation": ("validation",)},
    metrics=("accuracy",),
    max_seq_length=256,
    optimisation=PAIR,
    citation="Huang et al. 2019, Cosmos QA: Machine Reading Comprehension with Contextual Commonsense Reasoning",
    notes=("25,262 train and 2,985 validation questions",),
)  # fmt: skip

COMMONSENSE_QA = Task(
    name="commonsense_qa",
    role="intermediate",
    format="choice",
    description="which of five concepts answers a question of common sense",
    languages=("en",),
    hub=pinned("tau/commonsense_qa", config="data", licence="MIT"),
    mirror="commonsense_qa",
    columns={"prompt": "question", "choices": "choices.text", "label": "answerKey"},
    labels=("A", "B", "C", "D", "E"),
    source_labels=("A", "B", "C", "D", "E"),
    splits={"train": ("train",), "validation": ("validation",)},
    metrics=("accuracy",),
    optimisation=PAIR,
    citation="Talmor et al. 2019, CommonsenseQA: A Question Answering Challenge Targeting Commonsense Knowledge",
    notes=("9,741 train and 1,221 validation questions; the test answers are hidden",),
)

CCG = Task(
    name="ccg",
    role="intermediate",
    format="tagging",
    description="each word's category in CCGbank's derivations (supertagging)",
    languages=("en",),
    hub=HubSource(
        dataset="",
        config="",
        licence="LDC User Agreement",
        elsewhere=(
            "CCGbank is licensed, https://catalog.ldc.upenn.edu/LDC2005T13; put it into the folder ccg/ of a mirror and "
            "give --data MIRROR. Read are its .auto files, in section folders 00 to 24 (02-21 train, 00 dev) or as "
            "train.auto and dev.auto, and train.tsv and validation.tsv, with a sentence a line (tokens, tab, tags, "
            "separated by spaces) or a token a line (token, tab, tag, a blank line between sentences)"
        ),
    ),
    mirror="ccg",
    columns={"tokens": "tokens", "tags": "tags"},
    open_labels=True,
    splits={"train": ("train",), "validation": ("validation",)},
    metrics=("accuracy",),
    optimisation={
        "full": Optimisation(learning_rate=2e-5, num_train_epochs=10),
        "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=10),
    },
    citation="Hockenmaier and Steedman 2007, CCGbank: A Corpus of CCG Derivations and Dependency Structures",
    notes=(
        "the labels are the categories of the training rows; a dev category that is none of them counts as wrong",
        "Phang et al. 2020 count 38,015 train and 5,484 dev sentences and 1,363 categories",
        "words stand as CCGbank writes them (-LRB-, 1\\/2)",
    ),
)

MLM = Task(
    name="mlm",
    role="intermediate",
    format="mlm",
    description="masked language modelling on raw text, one line an example",
    languages=("en", *(code for code in LANGUAGES if code != "en")),
    hub=HubSource(
        dataset="",
        config="",
        licence="that of the text",
        elsewhere=(
            "raw text is your own choice: put train.txt and validation.txt, one line an example, or Parquet files with "
            "a column text, into the folder mlm/<language>/ of a mirror and give --data MIRROR"
        ),
    ),
    mirror="mlm/{lang}",
    columns={"text": "text"},
    splits={"train": ("train",), "validation": ("validation",)},
    metrics=("accuracy", "perplexity"),
    optimisation={
        "full": Optimisation(learning_rate=5e-5, num_train_epochs=1),
        "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=1),
    },
    citation="Devlin et al. 2019, BERT; Conneau et al. 2020, Unsupervised Cross-lingual Representation Learning at Scale",
    notes=(
        "15 % of the tokens are to be predicted: 80 % of them masked, 10 % replaced, 10 % left as they are",
        "mlm@sw+yo trains on two languages in turn, and selects on the same languages' validation text",
    ),
)

INTERMEDIATE_TASKS = (MNLI, ANLI, QQP, SQUAD, SQUAD_V2, HELLASWAG, COSMOS_QA, COMMONSENSE_QA, CCG, MLM)

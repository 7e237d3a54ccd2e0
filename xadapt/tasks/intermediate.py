"""English intermediate tasks (Phang et al. 2020, table 1)."""

from xadapt.tasks.spec import HubSource, Optimisation, Task

NLI_LABELS = ("entailment", "neutral", "contradiction")

MNLI = Task(
    name="mnli",
    role="intermediate",
    format="classification",
    description="does the premise entail, contradict or leave open the hypothesis",
    languages=("en",),
    hub=HubSource(dataset="nyu-mll/glue", config="mnli", licence="OANC, CC-BY-SA-3.0, CC-BY-3.0 by genre"),
    mirror="mnli",
    columns={"text_a": "premise", "text_b": "hypothesis", "label": "label"},
    labels=NLI_LABELS,
    source_labels=NLI_LABELS,
    splits={"train": ("train",), "validation": ("validation_matched", "validation")},
    metrics=("accuracy",),
    optimisation={
        "full": Optimisation(learning_rate=2e-5, num_train_epochs=2),
        "adapter": Optimisation(learning_rate=1e-4, num_train_epochs=10),
    },
    citation="Williams et al. 2018, A Broad-Coverage Challenge Corpus for Sentence Understanding through Inference",
    notes=("392,702 train, 9,815 matched and 9,832 mismatched validation pairs",),
)

INTERMEDIATE_TASKS = (MNLI,)

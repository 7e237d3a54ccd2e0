"""The Task: a frozen description of rows, labels, languages and metrics; data, never code."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xadapt.languages import get_language

Split = Literal["train", "validation", "test"]
FormatName = Literal["classification", "tagging", "retrieval"]
FORMAT_FIELDS: dict[str, tuple[str, ...]] = {
    "classification": ("text_a", "text_b", "label"),
    "tagging": ("tokens", "tags"),
    "retrieval": ("source", "target"),
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubSource(_Frozen):
    """Where a task's Parquet files lie on the hub: `<dataset>/<config>/<split>-*.parquet` at a revision.

    config may hold {lang}, {name} (English name) or {iso3}. revision is a 40-hex commit, or None while it has
    not been pinned: then the branch `main` is resolved at run time and the commit enters the record.
    """

    dataset: str
    config: str
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    licence: str


class Optimisation(_Frozen):
    """A task's starting point for one regime on XLM-R; a recipe overrides any of it."""

    learning_rate: float
    num_train_epochs: int
    per_device_train_batch_size: int = 32


class Task(_Frozen):
    """One task: name and languages as in the field, sources, columns, labels by name, metrics.

    columns maps the format's fields (FORMAT_FIELDS) to the source's columns. labels are canonical names in
    the order of the head's outputs: a source's own ids are translated by NAME, `source_labels` being the id
    order to assume where a source stores integers without names. splits maps each split to the names under
    which sources keep it, first match wins. A target with `train_on` trains on that task's English train
    split. metrics[0] is the headline.
    """

    name: str = Field(pattern="^[a-z][a-z0-9_]*$")
    role: Literal["intermediate", "target"]
    format: FormatName
    description: str
    version: int = 1
    languages: tuple[str, ...]
    hub: HubSource
    mirror: str
    columns: dict[str, str]
    labels: tuple[str, ...] = ()
    source_labels: tuple[str, ...] = ()
    splits: dict[Split, tuple[str, ...]]
    train_on: str | None = None
    metrics: tuple[str, ...]
    max_seq_length: int = 128
    optimisation: dict[str, Optimisation] = {}
    citation: str
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        fields = FORMAT_FIELDS[self.format]
        if set(self.columns) != set(fields):
            raise ValueError(f"task '{self.name}': columns must name exactly {', '.join(fields)}")
        for code in self.languages:
            get_language(code, place=f"task '{self.name}'")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task '{self.name}': a label stands twice")
        return self

    @property
    def main_metric(self) -> str:
        """The metric of the headline table."""
        return self.metrics[0]

    @property
    def trains(self) -> bool:
        """Whether the task has training at all (retrieval is scored straight from the encoder)."""
        return self.format != "retrieval"

    @property
    def train_task(self) -> str:
        """Name of the task whose English train split is trained on."""
        return self.train_on or self.name

    def hub_config(self, lang: str) -> str:
        """The hub's config name for a language."""
        return _fill(self.hub.config, lang)

    def mirror_folder(self, lang: str) -> str:
        """The folder of a language below a mirror, as `<dataset>/<config>`."""
        return _fill(self.mirror, lang)


def _fill(template: str, lang: str) -> str:
    language = get_language(lang)
    return template.format(lang=lang, name=language.name, iso3=language.iso3)

"""The Task: a frozen description of rows, labels, languages and metrics; data, never code."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xadapt.languages import Language, add_language, get_language

Split = Literal["train", "validation", "test"]
FormatName = Literal["classification", "tagging", "span", "choice", "retrieval", "mining", "mlm"]
FORMAT_FIELDS: dict[str, tuple[str, ...]] = {
    "classification": ("text_a", "text_b", "label"),
    "tagging": ("tokens", "tags"),
    "span": ("id", "context", "question", "answers"),
    "choice": ("prompt", "stem", "choices", "label"),
    "retrieval": ("source", "target"),
    "mining": ("side", "id", "text", "gold"),
    "mlm": ("text",),
}
OPTIONAL_FIELDS = frozenset({"text_b", "stem"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubSource(_Frozen):
    """Where a task's Parquet files lie on the hub: `<dataset>/<config>/<split>-*.parquet` at a revision.

    config may hold {lang}, {name} (English name), {lower} (the same in lower case) or {iso3}. revision is a
    40-hex commit, or None while it has not been pinned: then `branch` is resolved at run time and the commit
    enters the record. Where one config holds several languages, `id_prefix` picks one's rows by their id. An empty
    dataset says that the task lies on no hub; `elsewhere` then says where to get it and in which layouts.
    """

    dataset: str
    config: str
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    licence: str
    branch: str = "main"
    id_prefix: str = ""
    elsewhere: str = ""


class OwnLanguage(_Frozen):
    """A language outside the table of forty, as a user's task describes it."""

    code: str = Field(pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    name: str
    iso3: str = ""
    family: str = ""
    branch: str = ""
    script: str = ""
    seen_in_pretraining: bool = False


class Part(_Frozen):
    """One of several data sets whose rows make a task, with the split names of its own."""

    hub: HubSource
    mirror: str
    splits: dict[Split, tuple[str, ...]]


class Translation(Part):
    """Where the train split of an English task lies in other languages, in the same columns."""

    languages: tuple[str, ...]


class Optimisation(_Frozen):
    """A task's starting point for one regime on XLM-R; a recipe overrides any of it."""

    learning_rate: float = Field(gt=0, le=10)
    num_train_epochs: int = Field(gt=0)
    per_device_train_batch_size: int = Field(default=32, gt=0)


# where a task's LoRA starts: its adapter's numbers at the middle of the rates that are usual for LoRA
LORA_LEARNING_RATE = 3e-4


class Task(_Frozen):
    """One task: name and languages as in the field, sources, columns, labels by name, metrics.

    columns maps the format's fields (FORMAT_FIELDS) to the source's columns: `a`, a field `a.b` of a structure,
    or a list `a|b|c` made of several. labels are canonical names in the order of the head's outputs: a source's
    own ids are translated by NAME, `source_labels` being the id order to assume where a source stores integers
    without names, `aliases` names that sources use for ours. With open_labels an intermediate tagging task's labels
    are the tags of its training rows, sorted by name; a dev tag that is none of them counts as wrong. no_answer says that questions may have no answer.
    splits maps each split to the names under which sources keep it, first match wins; a name may be a share,
    `train[:90%]`, or a sum, `train_r1+train_r2`. `more` adds other data sets' rows, in proportion; `translated` has
    the train split in languages that are none of the task's.
    skip names the raw values for which a row is left out, by field; what is left out is counted. A target with
    `train_on` trains on that task's English train split. metrics[0] is the headline. own_languages describes
    languages outside the table; own says that the spec is a user's.
    """

    own_languages: tuple[OwnLanguage, ...] = ()
    name: str = Field(pattern="^[a-z][a-z0-9_]*$")
    role: Literal["intermediate", "target"]
    format: FormatName
    description: str
    version: int = Field(default=1, ge=1)
    languages: tuple[str, ...]
    hub: HubSource = HubSource(dataset="", config="", licence="")
    mirror: str
    columns: dict[str, str]
    labels: tuple[str, ...] = ()
    source_labels: tuple[str, ...] = ()
    aliases: dict[str, str] = {}
    open_labels: bool = False
    no_answer: bool = False
    splits: dict[Split, tuple[str, ...]]
    more: tuple[Part, ...] = ()
    translated: Translation | None = None
    skip: dict[str, tuple[int | str, ...]] = {}
    train_on: str | None = None
    metrics: tuple[str, ...] = Field(min_length=1)
    max_seq_length: int = Field(default=128, ge=8, le=512)
    optimisation: dict[str, Optimisation] = {}
    citation: str = ""
    notes: tuple[str, ...] = ()
    own: bool = False

    @field_validator("own_languages")
    @classmethod
    def _known_from_now_on(cls, languages: tuple[OwnLanguage, ...]) -> tuple[OwnLanguage, ...]:
        for language in languages:
            add_language(Language(**language.model_dump()))
        return languages

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        fields = FORMAT_FIELDS[self.format]
        if set(fields) - OPTIONAL_FIELDS - set(self.columns) or set(self.columns) - set(fields):
            raise ValueError(f"task '{self.name}': columns must name exactly {', '.join(fields)}")
        for code in self.train_languages:
            get_language(code, place=f"task '{self.name}'")
        for name, given, known in (("skip", self.skip, self.columns), ("aliases", self.aliases.values(), self.labels)):
            if strange := sorted(set(given) - set(known)):
                raise ValueError(f"task '{self.name}': {name} has '{strange[0]}', which is none of {', '.join(known)}")
        if self.open_labels and self.more:
            raise ValueError(f"task '{self.name}': labels taken from the rows need one data set, `more` adds others")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task '{self.name}': a label stands twice")
        if self.open_labels and (self.labels or (self.format, self.role) != ("tagging", "intermediate")):
            raise ValueError(f"task '{self.name}': open_labels is for intermediate tagging tasks without labels")
        return self

    @property
    def main_metric(self) -> str:
        """The metric of the headline table."""
        return self.metrics[0]

    def starting_point(self, regime: str) -> dict[str, Any]:
        """The training numbers the task proposes for a regime; none for a regime it says nothing of."""
        if regime == "lora" and "lora" not in self.optimisation and "adapter" in self.optimisation:
            return self.optimisation["adapter"].model_dump() | {"learning_rate": LORA_LEARNING_RATE}
        return self.optimisation[regime].model_dump() if regime in self.optimisation else {}

    @property
    def trains(self) -> bool:
        """Whether the task has training at all (retrieval and mining are scored straight from the encoder)."""
        return self.format not in ("retrieval", "mining")

    @property
    def train_task(self) -> str:
        """Name of the task whose English train split is trained on."""
        return self.train_on or self.name

    @property
    def parts(self) -> tuple[Part, ...]:
        """The data sets whose rows make the task."""
        return (Part(hub=self.hub, mirror=self.mirror, splits=self.splits), *self.more)

    def parts_in(self, lang: str) -> tuple[Part, ...]:
        """The data sets whose rows make the task in a language: translations where it has none of its own."""
        return (self.translated,) if self.translated and lang not in self.languages else self.parts

    @property
    def train_languages(self) -> tuple[str, ...]:
        """The languages whose rows it may be trained on; its sources may lack the train split of some."""
        return (*self.languages, *(self.translated.languages if self.translated else ()))

    @property
    def source_columns(self) -> tuple[str, ...]:
        """The columns of the source that the fields are made of."""
        return tuple(name.partition(".")[0] for column in self.columns.values() for name in column.split("|"))


def fill(template: str, lang: str) -> str:
    """A config, folder or prefix of a spec for one language."""
    language = get_language(lang)
    return template.format(lang=lang, name=language.name, lower=language.name.lower(), iso3=language.iso3)

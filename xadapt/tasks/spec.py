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


def _says(meaning: str, **more: Any) -> Any:
    """A field, what it means being printed by `xadapt tasks schema`."""
    return Field(description=meaning, **more)


class HubSource(_Frozen):
    """Where a task's Parquet files lie on the hub: `<dataset>/<config>/<split>-*.parquet` at a revision."""

    dataset: str = _says("the data set, owner/name; empty for a task that lies on no hub")
    config: str = _says(
        "its configuration, a folder; {lang}, {name} (the language's English name), {lower} (the same in lower case) and "
        "{iso3} are filled in"
    )
    revision: str | None = _says(
        "the commit, 40 hexadecimal digits; without one the branch's newest, which enters the record",
        default=None, pattern="^[0-9a-f]{40}$",
    )  # fmt: skip
    licence: str = _says("the data set's licence")
    branch: str = _says("the branch to read where no revision is given", default="main")
    id_prefix: str = _says(
        "where one configuration holds several languages, how the ids of a language's rows begin; filled in as config is",
        default="",
    )
    elsewhere: str = _says("of a task on no hub: where to get its data, and in which layout", default="")


class OwnLanguage(_Frozen):
    """A language outside the table of forty, as a user's task describes it."""

    code: str = _says(
        "its code, two or three letters (and parts such as -Latn), none of the table's",
        pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$",
    )
    name: str = _says("its English name")
    iso3: str = _says("its code in ISO 639-3", default="")
    family: str = _says("its family, under which scores are averaged", default="")
    branch: str = _says("its branch of the family", default="")
    script: str = _says("its script's code in ISO 15924", default="")
    seen_in_pretraining: bool = _says("whether the encoder saw it in pre-training", default=False)


class Part(_Frozen):
    """One of several data sets whose rows make a task."""

    hub: HubSource = _says("where it lies on the hub; the keys of hub")
    mirror: str = _says("its folder in a mirror")
    splits: dict[Split, tuple[str, ...]] = _says("its own names of the splits, as in splits")


class Translation(Part):
    """Where the train split of an English task lies in other languages, in the same columns."""

    languages: tuple[str, ...] = _says("the languages")


class Optimisation(_Frozen):
    """A task's starting point for one regime on XLM-R; a recipe overrides any of it."""

    learning_rate: float = _says("the highest learning rate", gt=0, le=10)
    num_train_epochs: int = _says("passes over the training rows", gt=0)
    per_device_train_batch_size: int = _says("examples of one step", default=32, gt=0)


# where a task's LoRA starts: its adapter's numbers at the middle of the rates that are usual for LoRA
LORA_LEARNING_RATE = 3e-4


class Task(_Frozen):
    """One task: name and languages as in the field, sources, columns, labels by name, metrics; see the fields.

    Labels of rows are translated by NAME: ids of a source mean nothing outside it. metrics[0] is the headline.
    """

    own_languages: tuple[OwnLanguage, ...] = _says("languages outside the table of `xadapt languages`", default=())
    name: str = _says("what commands and recipes call it: small letters, digits, _", pattern="^[a-z][a-z0-9_]*$")
    role: Literal["intermediate", "target"] = _says(
        "intermediate: trained before a target; target: evaluated in every language"
    )
    format: FormatName = _says("how rows become the model's input and what is predicted; columns says what each wants")
    description: str = _says("the task in a line")
    version: int = _says("to be raised when rows or labels come to mean something else", default=1, ge=1)
    languages: tuple[str, ...] = _says("codes of the languages that it has rows in")
    hub: HubSource = _says(
        "where its data lie on the hub; without, they come from --data",
        default=HubSource(dataset="", config="", licence=""),
    )
    mirror: str = _says(
        "its folder in a mirror, with a file SPLIT.parquet a split; {lang}, {name}, {lower} and {iso3} are filled in as in hub.config"
    )
    columns: dict[str, str] = _says(
        "the source's column of each field of the format ("
        + "; ".join(f"{of}: {', '.join(names)}" for of, names in FORMAT_FIELDS.items())
        + f"; {' and '.join(sorted(OPTIONAL_FIELDS))} may be left out); a.b is a field of a structure, a|b|c a list of "
        "several columns"
    )
    labels: tuple[str, ...] = _says("names of the labels or tags, in the order of the head's outputs", default=())
    source_labels: tuple[str, ...] = _says(
        "which label a source's 0 is, 1, and so on, where it has numbers without names", default=()
    )
    aliases: dict[str, str] = _says("other names of labels in the data, and the label that each is", default={})
    open_labels: bool = _says(
        "intermediate tagging only: the labels are the tags of the training rows, and a dev tag that is none of them is "
        "wrong",
        default=False,
    )
    no_answer: bool = _says("whether questions (format span) may have no answer", default=False)
    splits: dict[Split, tuple[str, ...]] = _says(
        "under which names sources keep each split, the first there is being read; train[:90%] is a share, a+b a sum"
    )
    more: tuple[Part, ...] = _says("further data sets, whose rows are mixed in in proportion", default=())
    translated: Translation | None = _says(
        "where the train split lies in languages that are none of the task's", default=None
    )
    skip: dict[str, tuple[int | str, ...]] = _says(
        "by field, values for which a row is left out and counted", default={}
    )
    max_skipped: float = _says(
        "the share of a split's rows (0 to 1) that may be left out and counted besides, since a text is blank or, in "
        "training, none of the answers stands in its context; one more and the first is an error",
        default=0.01, ge=0, le=1,
    )  # fmt: skip
    train_on: str | None = _says("of a target: the task whose English train split it trains on", default=None)
    metrics: tuple[str, ...] = _says(
        "what is computed, the first in the headline and for the choice of the checkpoint; docs/tasks.md has each format's",
        min_length=1,
    )
    max_seq_length: int = _says("tokens of an input", default=128, ge=8, le=512)
    optimisation: dict[str, Optimisation] = _says(
        "the numbers training starts from, by regime (full, adapter, lora; lora by default takes adapter's at its own "
        "learning rate); a recipe overrides them",
        default={},
    )
    citation: str = _says("who made the data", default="")
    notes: tuple[str, ...] = _says("what users should know", default=())
    own: bool = _says("that the spec is a user's", default=False)

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

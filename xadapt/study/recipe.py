"""The Recipe: the one configuration of a study, from a YAML file or from a command's options."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xadapt.errors import UserError, unknown
from xadapt.languages import get_language
from xadapt.regimes.specs import COMPOSITIONS, AdapterSpec, FullSpec, RegimeSpec, check_composition
from xadapt.tasks import Task, get_task
from xadapt.tasks.catalogue import get_training_data
from xadapt.tasks.user import add_task_file
from xadapt.training.settings import TrainingSettings

Samples = Annotated[int, Field(gt=0)] | None


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FullSection(_Section):
    """Full fine-tuning in this study: which compositions, and training numbers of its own."""

    compositions: tuple[str, ...] = ("none",)
    training: dict[str, Any] = {}

    @property
    def spec(self) -> RegimeSpec:
        return FullSpec()


class AdapterSection(AdapterSpec):
    """Adapters in this study: which compositions, the adapter's shape, and training numbers of its own."""

    compositions: tuple[str, ...] = ("none",)
    training: dict[str, Any] = {}

    @property
    def spec(self) -> RegimeSpec:
        return AdapterSpec.model_validate(self.model_dump(include=set(AdapterSpec.model_fields)))


class Regimes(_Section):
    """The regimes of a study, by name."""

    full: FullSection | None = None
    adapter: AdapterSection | None = None

    def items(self) -> list[tuple[str, FullSection | AdapterSection]]:
        """The regimes that are there, by name."""
        sections = (("full", self.full), ("adapter", self.adapter))
        return [(name, section) for name, section in sections if section is not None]


class Recipe(_Section):
    """Which intermediate tasks, targets, regimes and compositions, on which backbone and data, with which numbers.

    training holds numbers for all trainings, regimes.<name>.training and tasks.<name> override it in this
    order; what none of them says is the task's own default. The caps max_train_samples, max_eval_samples and
    max_predict_samples take the first rows of the train, dev and test splits. task_files name files of users'
    own tasks. An intermediate task or a target trains in English unless languages stand behind its name,
    `mnli@de+ru`. languages restricts the evaluation; without it every language of each target that the data has.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = "study"
    description: str = ""
    backbone: str = "xlm-roberta-base"
    data: str = "hub"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    task_files: tuple[str, ...] = ()
    intermediate: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    languages: tuple[str, ...] | None = None
    regimes: Regimes = Regimes(adapter=AdapterSection())
    training: dict[str, Any] = {}
    tasks: dict[str, dict[str, Any]] = {}
    max_train_samples: Samples = None
    max_eval_samples: Samples = None
    max_predict_samples: Samples = None
    retrieval_layer: Annotated[int, Field(ge=0)] | None = None

    @field_validator("task_files")
    @classmethod
    def _tasks_are_known(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for file in files:
            add_task_file(file)
        return files

    @field_validator("intermediate")
    @classmethod
    def _intermediate_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(get_training_data(name, place="intermediate", role="intermediate").name for name in names)

    @field_validator("targets")
    @classmethod
    def _targets_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(get_training_data(name, place="targets", role="target").name for name in names)

    @field_validator("languages")
    @classmethod
    def _languages_exist(cls, codes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return codes and tuple(get_language(code, place="languages").code for code in codes)

    @model_validator(mode="after")
    def _whole(self) -> "Recipe":
        if not self.regimes.items():
            raise UserError(f"`regimes` is empty; name one of {', '.join(Regimes.model_fields)}")
        for regime, section in self.regimes.items():
            if not section.compositions:
                pairs = ", ".join(COMPOSITIONS[regime])
                raise UserError(f"regimes.{regime}.compositions is empty; name one of {pairs}")
            for composition in section.compositions:
                check_composition(regime, composition, place=f"regimes.{regime}.compositions")
            if set(section.compositions) - {"none"} and self.targets and not self.intermediate:
                raise UserError(
                    f"regimes.{regime}.compositions has {', '.join(section.compositions)} but `intermediate` is "
                    "empty; name an intermediate task"
                )
            _check_training(section.training, f"regimes.{regime}.training")
        _check_training(self.training, "training")
        for task, numbers in self.tasks.items():
            get_task(task, place="tasks")
            _check_training(numbers, f"tasks.{task}")
        return self

    def training_for(self, task: Task, regime: str) -> TrainingSettings:
        """The training numbers of a task under a regime, all overrides applied."""
        defaults = task.optimisation[regime].model_dump() if regime in task.optimisation else {}
        own = dict(self.regimes.items())[regime].training
        numbers = defaults | {"max_seq_length": task.max_seq_length} | self.training | own
        return TrainingSettings.model_validate(numbers | self.tasks.get(task.name, {}))

    def evaluated_languages(self, task: Task, available: Sequence[str]) -> list[str]:
        """The languages a target is evaluated on; UserError if the restriction leaves none."""
        chosen = [code for code in available if self.languages is None or code in self.languages]
        if not chosen:
            wanted = ", ".join(self.languages or ())
            raise UserError(
                f"no language to evaluate '{task.name}' on: languages is {wanted or 'not set'}, data "
                f"'{self.data}' has {', '.join(available) or 'none of its languages'}"
            )
        return chosen


def _check_training(numbers: dict[str, Any], place: str) -> None:
    for name in numbers:
        if name not in TrainingSettings.model_fields:
            raise unknown("key", name, TrainingSettings.model_fields, place=place)
    try:
        TrainingSettings.model_validate(numbers)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise UserError(f"{place}.{problem['loc'][0]} = {problem['input']!r}: {problem['msg']}") from error

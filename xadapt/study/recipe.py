"""The Recipe: the one configuration of a study, from a YAML file or from a command's options."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from xadapt.errors import UserError, unknown
from xadapt.languages import get_language
from xadapt.regimes.specs import COMPOSITIONS, JOINT, check_composition
from xadapt.study.field_errors import FieldError
from xadapt.study.sections import (
    AdapterSection,
    FusionSection,
    LoraSection,
    MixtureSection,
    Regimes,
    RegimeSection,
    Section,
)
from xadapt.tasks import Task, get_task
from xadapt.tasks.catalogue import get_training_data
from xadapt.tasks.user import add_task_file
from xadapt.training.settings import TrainingSettings

Samples = Annotated[int, Field(gt=0)] | None
Seed = Annotated[int, Field(ge=0, lt=2**32)]


# for the attention of a fusion, unless told otherwise: Pfeiffer et al. 2021 for adapters; ours starts at zero scores
FUSION_LEARNING_RATE = {"adapter": 5e-5, "lora": 1e-3}


class Recipe(Section):
    """Which intermediate tasks, targets, regimes and compositions, on which backbone and data, with which numbers.

    training holds numbers for all trainings, regimes.<name>.training and tasks.<name> override it in this
    order; what none of them says is the task's own default. tasks.<name> is for trainings of that task alone; those on
    several have numbers of their own under mixture and fusion. average weighs intermediate tasks by name, equally without. The caps max_train_samples, max_eval_samples and
    max_predict_samples take the first rows of the train, dev and test splits. task_files name files of users'
    own tasks; modules names folders with modules that others trained, by intermediate task, which are imported instead
    of trained. seeds plans every cell once a seed. sweep maps keys, `training.learning_rate` for one in a section, to
    values, and plans every combination as a recipe of its own (`study.sweep`). max_intermediate_samples takes the place
    of max_train_samples in trainings of intermediate tasks. An intermediate task or a target trains in English unless languages stand behind its name,
    `mnli@de+ru`. together trains modules side by side on one encoder, where there are several to train, which changes
    results on a CPU by rounding alone, elsewhere by the draws of dropout, too. languages restricts the evaluation; without it every language of each target that the data has.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = "study"
    description: str = ""
    backbone: str = "xlm-roberta-base"
    data: str = "hub"
    seed: Seed = 0
    seeds: tuple[Seed, ...] = ()
    sweep: dict[str, tuple[Any, ...]] = {}
    task_files: tuple[str, ...] = ()
    intermediate: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    languages: tuple[str, ...] | None = None
    regimes: Regimes = Regimes(adapter=AdapterSection())
    mixture: MixtureSection = MixtureSection()
    fusion: FusionSection = FusionSection()
    average: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    modules: dict[str, str] = {}
    training: dict[str, Any] = {}
    tasks: dict[str, dict[str, Any]] = {}
    max_train_samples: Samples = None
    max_intermediate_samples: Samples = None
    max_eval_samples: Samples = None
    max_predict_samples: Samples = None
    retrieval_layer: Annotated[int, Field(ge=0)] | None = None
    together: bool = False

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if twice := [seed for at, seed in enumerate(seeds) if seed in seeds[:at]]:
            raise UserError(f"seeds: {twice[0]} stands twice; remove one")
        return seeds

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

    @field_validator("modules")
    @classmethod
    def _modules_of_tasks(cls, modules: dict[str, str]) -> dict[str, str]:
        named = (
            (get_training_data(name, place="modules", role="intermediate").name, modules[name]) for name in modules
        )
        return dict(named)

    @field_validator("languages")
    @classmethod
    def _languages_exist(cls, codes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return codes and tuple(get_language(code, place="languages").code for code in codes)

    @model_validator(mode="after")
    def _whole(self) -> "Recipe":
        if self.seeds and self.seed != self.seeds[0] and "seed" in self.model_fields_set:
            raise UserError(f"seed is {self.seed} and seeds begin with {self.seeds[0]}; give one of the two")
        if self.sweep:  # its points are whole, each by itself
            return self
        if not self.regimes.items():
            raise UserError(f"`regimes` is empty; name one of {', '.join(Regimes.model_fields)}")
        for regime, section in self.regimes.items():
            self._check_compositions(regime, section)
            _check_training(section.training, f"regimes.{regime}.training")
        self._check_together()
        for place, named in (("average", self.average), ("modules", self.modules)):
            for name in named:
                if name not in self.intermediate:
                    raise unknown("intermediate task", name, self.intermediate, place=place)
        _check_training(self.mixture.training, "mixture.training")
        _check_training(self.fusion.training, "fusion.training")
        _check_training(self.training, "training")
        for task, numbers in self.tasks.items():
            get_task(task, place="tasks")
            _check_training(numbers, f"tasks.{task}")
        return self

    def _check_together(self) -> None:
        frozen = {name: section for name, section in self.regimes.items() if name != "full"}
        if self.together and not frozen:
            raise UserError(
                "together: regime full moves the encoder itself, which trainings side by side would share; take adapter or "
                "lora, or leave together out"
            )
        if self.together and all(set(section.compositions) == {"multitask"} for section in frozen.values()):
            raise UserError(
                "together: composition multitask trains one module on all tasks, so that there is nothing beside it; leave "
                "one of them out"
            )

    def _check_compositions(self, regime: str, section: RegimeSection) -> None:
        place = f"regimes.{regime}.compositions"
        if twice := [name for at, name in enumerate(section.compositions) if name in section.compositions[:at]]:
            raise UserError(f"{place}: '{twice[0]}' stands twice; remove one")
        if not section.compositions:
            raise UserError(f"{place} is empty; name one of {', '.join(COMPOSITIONS[regime])}")
        for composition in section.compositions:
            check_composition(regime, composition, place=place)
            if isinstance(section, LoraSection) and section.use_dora and composition not in ("none", "continue"):
                raise UserError(
                    f"{place}: {composition} adds up deltas, and DoRA's are none, since it scales the whole weight; leave "
                    "use_dora out, or take none or continue"
                )
            if composition in JOINT and len(set(self.intermediate)) < 2:
                given = ", ".join(self.intermediate) or "none"
                raise UserError(
                    f"{place}: {composition} combines several intermediate tasks, but `intermediate` has {given}; name two"
                )
        if set(section.compositions) - {"none"} and self.targets and not self.intermediate:
            raise UserError(
                f"{place} has {', '.join(section.compositions)} but `intermediate` is empty; name an intermediate task"
            )

    @property
    def every_seed(self) -> tuple[int, ...]:
        """The seeds of the study's cells."""
        return self.seeds or (self.seed,)

    def train_cap(self, task: Task) -> int | None:
        """How many of a task's train rows are taken, None for all."""
        if task.role == "intermediate" and self.max_intermediate_samples:
            return self.max_intermediate_samples
        return self.max_train_samples

    def training_for(self, task: Task, regime: str, own: Mapping[str, Any] | None = None) -> TrainingSettings:
        """The training numbers of a task under a regime, all overrides applied, `own` last."""
        numbers = task.starting_point(regime) | {"max_seq_length": task.max_seq_length} | self._numbers(regime)
        return TrainingSettings.model_validate(numbers | self.tasks.get(task.name, {}) | dict(own or {}))

    def training_for_mixture(self, tasks: Sequence[Task], regime: str, composition: str) -> TrainingSettings:
        """The numbers of a training on several tasks at once; by default the gentlest of the tasks' own.

        The one task of a training with masked language modelling mixed in keeps its own.
        """
        if composition == "none":
            return self.training_for(tasks[0], regime)
        starts = [task.starting_point(regime) for task in tasks]
        numbers: dict[str, Any] = {}
        for key in ("learning_rate", "num_train_epochs", "per_device_train_batch_size"):
            if values := [start[key] for start in starts if key in start]:
                numbers[key] = min(values)
        if composition == "fusion":
            numbers["learning_rate"] = FUSION_LEARNING_RATE[regime]
        own = self.joint_training(composition)
        longest = max(self.training_for(task, regime).max_seq_length for task in tasks)
        return TrainingSettings.model_validate(numbers | self._numbers(regime) | {"max_seq_length": longest} | own)

    def joint_training(self, composition: str) -> dict[str, Any]:
        """The numbers that the recipe has for the trainings of a joint composition alone."""
        return {"fusion": self.fusion.training, "multitask": self.mixture.training}.get(composition, {})

    def dtype_of(self, regime: str) -> str:
        """The data type that a regime's trainings take, unless one has its own."""
        return str(self._numbers(regime).get("dtype", "auto"))

    def _numbers(self, regime: str) -> dict[str, Any]:
        return self.training | dict(self.regimes.items())[regime].training

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
    try:
        TrainingSettings.model_validate(numbers)
    except ValidationError as error:
        raise FieldError(error, TrainingSettings, within=place.split(".")) from error

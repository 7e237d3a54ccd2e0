"""All tasks by name."""

from dataclasses import dataclass

from xadapt.errors import UserError, unknown
from xadapt.tasks.intermediate import INTERMEDIATE_TASKS
from xadapt.tasks.spec import Task
from xadapt.tasks.xtreme import XTREME_TASKS

BUILT_IN: dict[str, Task] = {task.name: task for task in (*INTERMEDIATE_TASKS, *XTREME_TASKS)}
TASKS: dict[str, Task] = dict(BUILT_IN)  # and what `tasks.user` adds


def intermediate_names() -> list[str]:
    """Names of the intermediate tasks, in the catalogue's order."""
    return [task.name for task in TASKS.values() if task.role == "intermediate"]


def target_names() -> list[str]:
    """Names of the target tasks, in the catalogue's order."""
    return [task.name for task in TASKS.values() if task.role == "target"]


def train_task_of(task: Task) -> Task:
    """The task whose English train split a task trains on; UserError if its outputs are not the task's own."""
    data = get_task(task.train_task, place=f"train_on of task '{task.name}'")
    for what in ("format", "labels", "open_labels", "no_answer"):
        if getattr(task, what) != getattr(data, what):
            raise UserError(
                f"task '{task.name}' trains on '{data.name}', but their {what} differ: {getattr(task, what)} and "
                f"{getattr(data, what)}; give both the same, in one order"
            )
    return data


@dataclass(frozen=True)
class TrainingData:
    """A task and the languages it is trained on, `mnli@de+ru` for short; in English it is the task's name alone."""

    task: Task
    langs: tuple[str, ...] = ("en",)

    @property
    def name(self) -> str:
        return self.task.name if self.langs == ("en",) else f"{self.task.name}@{'+'.join(self.langs)}"


def get_training_data(name: str, *, place: str = "--task", role: str | None = None) -> TrainingData:
    """What `task` or `task@lang+lang` means, the languages sorted.

    Raises UserError for an unknown task, one without training, or a language it has no train split in.
    """
    head, at, tail = name.partition("@")
    task = get_task(head, place=place, role=role)
    if not at:
        return TrainingData(task)
    if not task.trains:
        raise UserError(f"{place}: '{name}': task '{head}' has no training; leave @{tail} out")
    valid = train_task_of(task).train_languages
    for lang in tail.split("+"):
        if lang not in valid:
            raise unknown("language", lang, valid, place=f"{place} '{name}' (languages to train {head} on)")
    return TrainingData(task, tuple(sorted(set(tail.split("+")))))


def get_task(name: str, *, place: str = "--task", role: str | None = None) -> Task:
    """The task with this name; raises UserError naming the nearest one, among `role`'s tasks if given."""
    valid = [task.name for task in TASKS.values() if role in (None, task.role)]
    if name not in valid:
        raise unknown(f"{role} task" if role else "task", name, valid, place=place)
    return TASKS[name]

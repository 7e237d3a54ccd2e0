"""The task catalogue, as data: what is trained, what is evaluated, where its rows come from."""

from xadapt.tasks.catalogue import TASKS, get_task, intermediate_names, target_names
from xadapt.tasks.spec import HubSource, Optimisation, Task

__all__ = ["TASKS", "HubSource", "Optimisation", "Task", "get_task", "intermediate_names", "target_names"]

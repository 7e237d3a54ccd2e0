"""The options that say how a plan is run, which change no result."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from xadapt.study.execution import Execution

_RUN = "Running"
EXECUTORS = ("local", "ray")

SaveEvery = Annotated[
    str | None,
    typer.Option(
        help="How often trainings keep a checkpoint to go on from: steps, as 200, or a time, as 90s, 10m or 2h; "
        "default 10m.",
        rich_help_panel=_RUN,
    ),
]
RetryInFp32 = Annotated[
    bool,
    typer.Option(
        "--retry-in-fp32", help="Where bfloat16 diverges, go on in float32 from the last checkpoint.",
        rich_help_panel=_RUN,
    ),
]  # fmt: skip
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic", help="On a GPU: the same bytes each time, also where a run was stopped; slower.",
        rich_help_panel=_RUN,
    ),
]  # fmt: skip
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Stages that run at once, each in a process of its own; default 1, or one a GPU where there are several, and "
        "on Ray what there is room for.",
        rich_help_panel=_RUN,
    ),
]
Executor = Annotated[str, typer.Option(help="Who runs the stages: local or ray.", rich_help_panel=_RUN)]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster, as auto or HOST:PORT; default RAY_ADDRESS, else one of this machine alone.",
        rich_help_panel=_RUN,
    ),
]
UpdateData = Annotated[
    bool,
    typer.Option(
        "--update-data", help="Read the hub at its newest, not at what its branches were when they were first read."
    ),
]
# for commands that take their options in groups, see `options.takes`
EXECUTION: dict[str, tuple[object, object]] = {
    "save_every": (SaveEvery, None),
    "retry_in_fp32": (RetryInFp32, False),
    "deterministic": (Deterministic, False),
    "jobs": (Jobs, None),
    "update_data": (UpdateData, False),
}


def execution_of(options: Mapping[str, Any]) -> "Execution":
    """What the options say of how to run; UserError for what cannot be."""
    from xadapt.errors import UserError, unknown
    from xadapt.study.execution import DEFAULT, Execution
    from xadapt.training.settings import SaveEvery

    executor = options.get("executor", "local")
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS, place="--executor")
    every, jobs, address = options["save_every"], options["jobs"], options.get("address")
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: give the number of stages that may run at once, 1 or more")
    if address is not None and executor != "ray":
        raise UserError(f"--address {address} belongs to --executor ray; add that, or leave it out")
    return Execution(
        save_every=SaveEvery.of(every) if every is not None else DEFAULT.save_every,
        retry_in_fp32=options["retry_in_fp32"], deterministic=options["deterministic"],
        jobs=jobs, executor=executor, address=address,
    )  # fmt: skip

"""What a worker does with an assignment, in this process; the one module here that loads torch."""

from xadapt.errors import UserError
from xadapt.study.executors import run_unit
from xadapt.workers.assignment import Assignment, assigned_keys
from xadapt.workers.reports import Report, Send, Telling, ended, refused


def work(text: str, send: Send) -> Report:
    """Run the unit of an assignment; its last report. Progress is sent on the way."""
    try:
        assignment = Assignment.from_json(text)
    except UserError as error:
        return refused(assigned_keys(text), error)
    return ended(run_unit(assignment.unit, assignment.store, Telling(send), execution=assignment.execution))

"""What earlier versions called data and encoders of the hub, by commit, in the names of today, by content; torch-free."""

import re
from typing import cast

from xadapt.data.hub import Found, repository_of, whole_split
from xadapt.data.hub_record import Repository
from xadapt.data.listing import listing_at, place_of
from xadapt.data.splits import shares
from xadapt.data.transfer import Patience, hub_errors
from xadapt.errors import UserError
from xadapt.models.identity import backbone_identity
from xadapt.tasks import Task
from xadapt.tasks.spec import Part, Split

_COMMIT = "(?P<commit>[0-9a-f]{40})"
_MODEL = re.compile(f"hub:(?P<name>[^@]+)@{_COMMIT}")
_ROWS = re.compile(f"hub:(?P<name>[^@]+)@{_COMMIT}/(?P<config>.+)/(?P<split>train|validation|test)(?:\\[.*\\])?")


def content_identity(old: str, task: Task | None = None) -> str | None:
    """The identity by content of what an earlier version named by its commit on the hub; any other as it is.

    old is an encoder's, `hub:<name>@<commit>`, or with a task its rows', `hub:<dataset>@<commit>/<config>/<split>`, of
    several data sets joined by `+`, of several languages or splits by a space. The files of a commit are told by our
    record, the hub, or the hub library's cache; None where none of them does.
    """
    unknown: tuple[type[Exception], ...] = (UserError, *hub_errors())
    try:
        if task is None:
            return _model(old)
        return " ".join(_rows(one, task) for one in old.split(" "))
    except unknown:
        return None


def _model(old: str) -> str:
    if not (named := _MODEL.fullmatch(old)):
        return old
    key = Repository(kind="model", name=named["name"]).key
    return backbone_identity(named["name"], commits={key: named["commit"]})


def _rows(old: str, task: Task) -> str:
    if not old.startswith("hub:"):
        return old
    return "sha256:" + "+".join(_content(one, task) for one in re.split(r"\+(?=hub:)", old))


def _content(old: str, task: Task) -> str:
    """The content of one data set's split, of which the earlier name says all but which share of it is meant."""
    named = _ROWS.fullmatch(old)
    parts = [part for part in _parts(task) if named and part.hub.dataset == named["name"]]
    if not (named and parts):
        raise UserError(f"'{old}' is none of task '{task.name}'")
    repository = repository_of(parts[0].hub.model_copy(update={"revision": named["commit"]}))
    listing = listing_at(repository, named["commit"], Patience())
    split = cast(Split, named["split"])
    wanted = [share for part in parts for share in shares(part, split)]
    files, share = whole_split(named["config"], wanted, listing.files, place_of(repository, listing))
    if share is None:
        raise UserError(f"{place_of(repository, listing)} has no {split} split of task '{task.name}'")
    return Found(repository, listing, files, share).content


def _parts(task: Task) -> list[Part]:
    return [*task.parts, *([task.translated] if task.translated else [])]

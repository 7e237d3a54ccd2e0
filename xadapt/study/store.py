"""The Store: results at content addresses; claim, work aside, commit, provenance, verify; torch-free."""

import functools
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import Any

from xadapt import __version__
from xadapt.durable import checksum, read_sealed, sync, write_sealed
from xadapt.errors import UserError
from xadapt.locks import Held, LockLost, holder, locked, token_of
from xadapt.study.stage import STAGE_VERSIONS, Stage
from xadapt.study.study_files import add_study, named_studies, read_studies
from xadapt.study.unfinished import PARTIAL, begin, leave, put_in_place
from xadapt.study.unfinished import PROGRESS as PROGRESS

MANIFEST = "manifest.json"
_PACKAGES = ("torch", "transformers", "adapters", "peft", "accelerate", "tokenizers", "datasets", "numpy")
FIELDS = {"key", "spec", "needs", "record", "files"}
# a stage's record, or the error that ended it
Made = dict[str, Any] | Exception


@dataclass(frozen=True)
class Result:
    """A finished stage: its folder, its manifest, and whether it was there already."""

    folder: Path
    manifest: Mapping[str, Any]
    cached: bool

    @property
    def record(self) -> dict[str, Any]:
        """What the stage said about itself: scores, seconds, counts."""
        return dict(self.manifest["record"])


class Store:
    """Results below `root`, one folder a stage: `<kind>/<first 16 of key>/`, complete when its manifest is there.

    A stage works in `<folder>.<token>.partial` under a lock, whose token it is; the manifest, with the checksum of every
    file, is written last, and one rename makes the result visible, which fails once another host has taken the lock over.
    A failed stage leaves `<folder>.partial` with `error.txt`. Whatever ends a stage, what it has in `progress/` is there
    when it is started again.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, stage: Stage) -> Path:
        """Where the stage's result lies or would lie."""
        return self.root / stage.kind / stage.key[:16]

    def find(self, stage: Stage, *, checked: bool = True) -> Result | None:
        """The finished result of a stage, if any; what is in a partial folder is none. For checked see `read`."""
        result = self.read(self.folder(stage), checked=checked)
        if result and result.manifest["key"] != stage.key:
            raise UserError(f"{result.folder} holds the result of another stage; delete {result.folder} and run again")
        return result

    def read(self, folder: Path, *, checked: bool = True) -> Result | None:
        """The result in a folder, if it is complete; UserError if its manifest is not what was written.

        Unless checked, its checksum is not looked at, which takes as long as reading it: enough to say what is there.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            manifest = read_sealed(path, fields=FIELDS, checked=checked)
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete {folder} and run again") from error
        if "version" not in manifest:
            raise UserError(f"{path}: an earlier version of xadapt wrote it; {upgrade_hint(self.root)}")
        return Result(folder, manifest, cached=True)

    def run(self, stage: Stage, work: Callable[[Path], dict[str, Any]], *, waiting: Callable[[], None]) -> Result:
        """The stage's result: found, or made by `work(partial_folder)`, whose return value is the record.

        Processes that want the same stage wait for the one that has it (waiting is told) and then find its
        result. An error of `work` is written to the partial folder and raised again; a UserError leaves nothing.
        """

        def alone(folders: Mapping[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
            yield stage.key, work(folders[stage.key])

        ended = self.run_several([stage], alone, waiting=lambda _: waiting())[stage.key]
        if isinstance(ended, Exception):
            raise ended
        return ended

    def run_several(
        self, stages: Sequence[Stage], work: Callable[[Mapping[str, Path]], Iterable[tuple[str, Made]]], *,
        waiting: Callable[[Stage], None],
    ) -> dict[str, Result | Exception]:  # fmt: skip
        """As `run` for stages that are made by one work; by key, the result of each or the error that ended it.

        work is given the partial folders of those that are not there, by key, and gives each key as it is finished
        with its record or its error; a result is there from then on. An error that it raises is that of all the rest.
        """
        ended: dict[str, Result | Exception] = {}
        with ExitStack() as locks:
            held: dict[str, Held] = {}
            for stage in sorted(stages, key=lambda stage: stage.key):  # so that no two wait for each other
                self.folder(stage).parent.mkdir(parents=True, exist_ok=True)
                lock = locked(self.folder(stage).with_suffix(".lock"), functools.partial(waiting, stage))
                held[stage.key] = locks.enter_context(lock)
            claimed: dict[str, _Claim] = {}
            for stage in stages:
                try:
                    if result := self.find(stage):
                        ended[stage.key] = result
                    else:
                        claim = claimed[stage.key] = _Claim.of(stage, self.folder(stage), held[stage.key])
                        locks.callback(claim.leave)
                except Exception as error:
                    ended[stage.key] = error
            together = [claim.stage.label for claim in claimed.values()] if len(claimed) > 1 else []
            try:
                for key, made in work({key: claim.partial for key, claim in claimed.items()}) if claimed else ():
                    ended[key] = claimed.pop(key).end(made, together)
                assert not claimed, "work ends every stage"
            except Exception as error:
                ended |= {key: claim.end(error, together) for key, claim in claimed.items()}
        return ended

    def holder(self, stage: Stage) -> str:
        """Who is at a stage, as `host, pid 123`; empty if nobody is."""
        return holder(self.folder(stage).with_suffix(".lock"))

    def partial(self, stage: Stage) -> Path:
        """Where whoever holds a stage's lock works, or what a start without a result has left."""
        folder = self.folder(stage)
        token = token_of(folder.with_suffix(".lock"))
        return folder.with_name(f"{folder.name}.{token}{PARTIAL}") if token else folder.with_suffix(PARTIAL)

    def verified(self, stage: Stage) -> Result:
        """A finished result whose files all have the checksums of its manifest; UserError names the one that has not."""
        result = self.find(stage)
        assert result is not None, "a stage runs after what it needs"
        verify(result)
        return result

    def write_study(self, name: str, study: Mapping[str, Any]) -> None:
        """Keep what a recipe asked for and which results answer it, for `compare`; what was kept before stays, too."""
        add_study(self.root, name, study)

    def study(self, name: str) -> dict[str, Any] | None:
        """The latest version of a study by name, None where there is none that can be read."""
        found = [study for study in read_studies(self.root) if study.name == name and not study.problem]
        return dict(max(found, key=lambda study: study.version).content) if found else None

    def studies(self) -> dict[str, dict[str, Any]]:
        """The latest version of all studies by name, oldest first; UserError for one that cannot be read."""
        return {name: dict(content) for name, content in named_studies(self.root, ()).items()}


@dataclass(frozen=True)
class _Claim:
    """A stage whose lock is held, and the partial folder it works in."""

    stage: Stage
    folder: Path
    partial: Path
    held: Held
    started: datetime
    clock: float

    @classmethod
    def of(cls, stage: Stage, folder: Path, held: Held) -> "_Claim":
        """Start with a partial folder that is empty but for what an earlier start kept."""
        return cls(stage, folder, begin(folder, held), held, datetime.now(UTC), time.monotonic())

    def end(self, made: Made, together: Sequence[str]) -> Result | Exception:
        """Make a result of a record, or keep what is kept of an error."""
        try:
            self.held.check()
            if not isinstance(made, Exception):
                return self._commit(made, together)
        except LockLost as lost:  # before any error of the work, whose folder has gone
            return lost
        except Exception as error:
            made = error
        assert isinstance(made, Exception), "what is no error has been committed"
        if isinstance(made, UserError) and not any(self.partial.glob(f"{PROGRESS}/*/")):
            shutil.rmtree(self.partial, ignore_errors=True)
        else:
            with suppress(OSError):  # the error itself matters more than the note of it
                text = "".join(traceback.format_exception(made))
                (self.partial / "error.txt").write_text(text, encoding="utf-8")
        self.leave()
        return made

    def leave(self) -> None:
        """Let others find what is left."""
        leave(self.partial, self.folder, self.held)

    def _commit(self, record: Mapping[str, Any], together: Sequence[str]) -> Result:
        stage, partial, seconds = self.stage, self.partial, time.monotonic() - self.clock
        manifest = {
            "key": stage.key,
            "kind": stage.kind,
            "version": STAGE_VERSIONS[stage.kind],
            "label": stage.label,
            "spec": stage.spec,
            "needs": [need.key for need in stage.needs],
            "record": record,
            "provenance": _provenance(stage, self.started, seconds, together),
            "files": {name: checksum(partial / name) for name in _files(partial)},
        }
        written = write_sealed(partial / MANIFEST, manifest, sort_keys=True)
        for inside in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
            sync(inside)
        put_in_place(partial, self.folder, self.held)  # of a folder without a manifest, which is no result
        return Result(self.folder, written, cached=False)


def upgrade_hint(root: Path) -> str:
    """What to do about what an earlier version wrote into a store."""
    return (
        f"`xadapt store upgrade --store {quote(str(root))}` gives what lies there the form and keys of this version, and "
        "`xadapt store rm` drops what it leaves"
    )


def verify(result: Result) -> None:
    """UserError unless every file of a result has the size and sha256 of its manifest."""
    for name, expected in result.manifest["files"].items():
        path = result.folder / name
        if not path.is_file() or checksum(path) != expected:
            raise UserError(f"{path} is not what was written (checksum); delete {result.folder} and run again")


def _provenance(stage: Stage, started: datetime, seconds: float, together: Sequence[str]) -> dict[str, Any]:
    """together names all stages that were made at once, where there were several."""
    return {
        "xadapt": __version__,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "where": dict(stage.where),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        **({"together": list(together)} if together else {}),
    }


def _files(folder: Path) -> list[str]:
    """What a result consists of; what a stage kept on its way is no part of it."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != PROGRESS)

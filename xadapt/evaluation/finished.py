"""The languages of an evaluation that are done: scores and predictions kept as each ends, for a later start."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow.parquet as pq

from xadapt.durable import checksum, read_sealed, write_sealed
from xadapt.errors import UserError
from xadapt.evaluation.predictions import SCHEMA, PredictionFile
from xadapt.evaluation.zero_shot import Predicted
from xadapt.tasks import Task


class FinishedLanguages:
    """A file of predictions a language in `folder`, and beside it one with what is known of it, written last."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder, self.task = folder, task
        self._open: dict[str, PredictionFile] = {}

    def read(self, languages: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What `finish` was given for each of the languages that is there, whole and undamaged."""
        found = {}
        for lang in languages:
            with suppress(OSError, ValueError):
                values = read_sealed(self._path(lang, "json"), fields={"of", "file"})
                if checksum(self._path(lang, "parquet")) == values["file"]:
                    found[lang] = values["of"]
        return found

    def write(self, predicted: Predicted) -> None:
        """Append some predictions of a language that is not finished."""
        if predicted.lang not in self._open:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._path(predicted.lang, "json").unlink(missing_ok=True)
            self._open[predicted.lang] = PredictionFile(self._path(predicted.lang, "parquet"), self.task)
        self._open[predicted.lang].write(predicted)

    def finish(self, lang: str, of: Mapping[str, Any]) -> None:
        """Keep a language and what is to be known of it; what is kept survives a crash from here on."""
        self._open.pop(lang).close()
        write_sealed(self._path(lang, "json"), {"of": of, "file": checksum(self._path(lang, "parquet"))})

    def join(self, languages: Sequence[str], path: Path) -> None:
        """Write the predictions of all languages into one file, in this order."""
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for lang in languages:
                file = pq.ParquetFile(self._path(lang, "parquet"))
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave what is not finished; what a user has to mend makes another evaluation, and nothing stays of this one."""
        for file in self._open.values():
            file.close()
        self._open.clear()
        if isinstance(error, UserError):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, lang: str, suffix: str) -> Path:
        return self.folder / f"{lang}.{suffix}"

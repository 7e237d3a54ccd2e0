"""Sealed JSON and studies under a seal: whatever is changed in a file is noticed, and nothing of it is believed."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli import _check_error, ok, xadapt
from test_inventory import study_of
from test_store import AFTER, STAGE, run, small_study
from test_upgrade import EARLIER, carried

from xadapt.durable import read_sealed, sealed, write_sealed
from xadapt.errors import UserError
from xadapt.study.inventory import list_entries
from xadapt.study.store import Store
from xadapt.study.study_files import read_studies
from xadapt.study.upgrade import CONVERSIONS

MUTATIONS = 320
OTHERS = [None, True, -1, 0.5, 10**400, "", "x" * 300, "../..", "\ud800", [], {}, [[[]]], {"a": {}}]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two studies, real ones."""
    shutil.copytree(EARLIER / "store", tmp_path / "store")
    shutil.copytree(EARLIER / "tiny", tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    carried(tmp_path / "store", CONVERSIONS)
    return tmp_path / "store"


# ---- changes, each by a drawing


def byte(text: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(text))
    return text[:at] + bytes([text[at] ^ 1 << draw.randrange(8)]) + text[at + 1 :]


def shortened(text: bytes, draw: random.Random) -> bytes:
    return text[: draw.randrange(len(text))]


def moved(text: bytes, draw: random.Random) -> bytes:
    """Some bytes of it somewhere else in it."""
    start, at = draw.randrange(len(text)), draw.randrange(len(text))
    return text[:at] + text[start : start + draw.randrange(1, 200)] + text[at:]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in JSON with each of its keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, of in inner for place in ((value, key), *places(of))]


def other_value(text: bytes, draw: random.Random) -> bytes:
    content = json.loads(text)
    container, key = draw.choice(places(content))
    container[key] = draw.choice(OTHERS)
    return json.dumps(content).encode()


def swapped(text: bytes, draw: random.Random) -> bytes:
    content = json.loads(text)
    (one, first), (other, second) = draw.sample(places(content), 2)
    one[first], other[second] = json.loads(json.dumps(other[second])), json.loads(json.dumps(one[first]))
    return json.dumps(content).encode()


def without(text: bytes, draw: random.Random) -> bytes:
    content = json.loads(text)
    container, key = draw.choice(places(content))
    del container[key]
    return json.dumps(content).encode()


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (byte, shortened, moved, other_value, swapped, without)


def test_no_change_of_a_study_is_believed_and_none_ends_in_a_traceback(root: Path) -> None:
    path = root / "studies" / "small.json"
    whole, expected = path.read_bytes(), Store(root).studies()["small"]
    commands = ["compare", "compare small", "export small --xtreme out", "store show small", "store export out",
                "store ls --study small", "store gc --unreachable", "store rm second --results"]  # fmt: skip
    draw = random.Random(0)
    for number in range(MUTATIONS):
        path.write_bytes(CHANGES[number % len(CHANGES)](whole, draw))
        (found,) = (study for study in read_studies(root) if study.name == "small")
        if not found.problem:
            assert found.content == expected, "a change of form alone, or none"
            continue
        _check_error(xadapt(*commands[number % len(commands)].split(), "--store", root), [str(path)])
    assert not Path("out").exists()


def test_an_edited_regime_is_found_refused_and_needs_no_other_study(root: Path) -> None:
    path = root / "studies" / "small.json"
    content = json.loads(path.read_text())
    content["cells"][0] |= {"regime": "full", "composition": "none"}
    path.write_text(json.dumps(content))
    verified = xadapt("store", "verify", "--store", root)
    assert (verified.code, str(path) in verified.out) == (1, True)
    _check_error(xadapt("compare", "small", "--store", root), [str(path)])
    ok("compare", "second", "--store", root)
    Store(root).write_study("small", small_study("run again"))
    assert Store(root).studies()["small"] == small_study("run again")


# ---- manifests


def test_a_manifest_without_its_checksum_or_version_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = run(store).folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in manifest.items() if name != "checksum"}))
    with pytest.raises(UserError, match="checksum"):
        store.find(STAGE)
    path.write_text(json.dumps(sealed({name: value for name, value in manifest.items() if name != "version"})))
    with pytest.raises(UserError, match="store upgrade"):
        store.find(STAGE)
    assert [entry.state for entry in list_entries(tmp_path)] == ["earlier"]


# ---- the file itself


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    values = {"\u00e9": [1, 2.5, None, True, {"\U0001f600": "\n"}], "n": 10**300, "tuple": (1, 2)}
    written = write_sealed(tmp_path / "file.json", values)
    assert read_sealed(tmp_path / "file.json", fields={"n"}) == written
    assert {name: of for name, of in written.items() if name != "checksum"} == {**values, "tuple": [1, 2]}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
    assert sealed(written) == written, "a seal is not sealed"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b"3", b"\xff\xfe{}", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b'{"a": "\\ud800"}', b"[" * 100_000,
        b'{"a":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": 1}', b'{"a": 1, "checksum": 3}', b'{"a": 1} {"a": 1}',
    ],
)  # fmt: skip
def test_what_is_no_sealed_json_is_a_value_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file.json").write_bytes(data)
    with pytest.raises(ValueError):  # noqa: PT011
        read_sealed(tmp_path / "file.json", fields={"a"})


def test_links_pipes_and_what_is_too_large_are_value_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sealed(tmp_path / "file.json", {"a": "x" * 100})
    (tmp_path / "link.json").symlink_to(tmp_path / "file.json")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises((ValueError, IsADirectoryError)):
            read_sealed(tmp_path / f"{name}.json", fields={"a"})
    monkeypatch.setattr("xadapt.durable.LARGEST", 100)
    with pytest.raises(ValueError, match="too large"):
        read_sealed(tmp_path / "file.json", fields={"a"})


def test_a_study_with_a_seal_and_wrong_content_is_damaged(tmp_path: Path) -> None:
    """As one from elsewhere may be."""
    cell = study_of(AFTER)["cells"][0]
    wrong: list[dict[str, Any]] = [
        {"setting": 3}, {"cells": {}}, {"cells": [3]}, {"cells": [{**cell, "seed": "0"}]}, {"stages": {}}, {"stages": [3]},
        {"cells": [{**cell, "point": 1}], "points": [{"values": {}, "label": "", "setting": ""}]}, {"points": [3]},
        {"cells": [{**cell, "point": "x"}]}, {"recipe": []}, {"cells": [{**cell, "evaluation": "../x"}]},
    ]  # fmt: skip
    for number, change in enumerate(wrong):
        Store(tmp_path).write_study(f"s{number}", {**study_of(AFTER), **change})
    assert [study.name for study in read_studies(tmp_path) if not study.problem] == []

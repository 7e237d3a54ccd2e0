"""Who may import whom, read from the source: no torch where answers must be quick, and no layer looks up."""

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"xadapt": ROOT / "xadapt", "xadapt_cli": ROOT / "cli"}
TORCH = {"torch", "transformers", "accelerate", "adapters", "peft"}
TABLES = {"pyarrow", "datasets", "huggingface_hub"}
# modules and packages that must not load torch, directly or through what they load
TORCH_FREE = (
    "xadapt.errors", "xadapt.durable", "xadapt.interruption", "xadapt.locks", "xadapt.languages", "xadapt.tasks", "xadapt.data", "xadapt.metrics", "xadapt.models.identity", "xadapt.models.encoder_files", "xadapt.models.fetch", "xadapt.models.hub",
    "xadapt.models.embedded", "xadapt.regimes.specs", "xadapt.regimes.sizes", "xadapt.training.settings", "xadapt.study.sections", "xadapt.study.stage", "xadapt.study.planner", "xadapt.study.recipe",
    "xadapt.study.recipe_file", "xadapt.study.plan", "xadapt.study.store", "xadapt.study.execution", "xadapt.study.precision", "xadapt.study.outcome",
    "xadapt.workers.assignment", "xadapt.workers.reports", "xadapt.workers.schedule", "xadapt.workers.process",
    "xadapt.workers.local_pool", "xadapt.workers.ray_pool", "xadapt.workers.resources", "xadapt.workers.start",
    "xadapt.study.sweep", "xadapt.study.recipe_errors", "xadapt.study.looked_up", "xadapt.study.hub_identities", "xadapt.study.estimate", "xadapt_cli.plan",
    "xadapt.study.study_files", "xadapt.study.inventory", "xadapt.study.integrity", "xadapt.study.cleaning", "xadapt.study.transfer", "xadapt.study.unfinished",
    "xadapt.study.removal", "xadapt.study.upgrade", "xadapt_cli.store", "xadapt_cli.store_removal",
    "xadapt.study.field_errors", "xadapt.study.tracking", "xadapt.training.trackers",
    "xadapt.study.collect", "xadapt.evaluation.submission", "xadapt.evaluation.submission_files", "xadapt.analysis",
    "xadapt.evaluation.own_rows", "xadapt.evaluation.own_records", "xadapt.evaluation.submission_export", "xadapt.regimes.compositions", "xadapt_cli.export",
    "xadapt.study.module_folder", "xadapt_cli.predict", "xadapt_cli.import_module",
    "xadapt_cli.app", "xadapt_cli.catalogue", "xadapt_cli.study", "xadapt_cli.train", "xadapt_cli.score",
    "xadapt_cli.fetch", "xadapt_cli.options", "xadapt_cli.tables", "xadapt_cli.console",
    "xadapt_cli.execution", "xadapt_cli.progress", "xadapt_cli.live", "xadapt_cli.pace",
)  # fmt: skip
# lowest first; a module may import from lower layers and from its own package
LAYERS: tuple[tuple[str, ...], ...] = (
    ("xadapt.errors", "xadapt.interruption"),
    ("xadapt.durable", "xadapt.locks", "xadapt.memory", "xadapt.cache"),
    ("xadapt.languages",),
    ("xadapt.tasks",),
    ("xadapt.data", "xadapt.metrics", "xadapt.models", "xadapt.formats", "xadapt.regimes"),
    ("xadapt.training",),
    ("xadapt.evaluation",),
    ("xadapt.analysis",),
    ("xadapt.study",),
    ("xadapt.study.stages",),
    ("xadapt.study.executors",),
    ("xadapt.workers",),
    ("xadapt_cli",),
)
# what packages of one layer may take from each other
BESIDE = {
    "xadapt.formats": ("xadapt.data", "xadapt.models.heads"),
    "xadapt.regimes": ("xadapt.models",),
    "xadapt.models": ("xadapt.data",),
}


@dataclass(frozen=True)
class Import:
    """One imported name as a dotted path; at_import says that it happens when the module is loaded."""

    name: str
    at_import: bool
    line: int


def imports_of(source: str, package: str) -> list[Import]:
    """Every import in a module's source, bar those for type checkers; package resolves relative ones."""
    found: list[Import] = []

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for inner in node.orelse:
                visit(inner, at_import)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, at_import, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found.extend(Import(f"{origin}.{alias.name}", at_import, node.lineno) for alias in node.names)
        inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.iter_child_nodes(node):
            visit(inner, inside)

    visit(ast.parse(source), True)
    return found


@cache
def modules() -> dict[str, Path]:
    """Every module of the project, by dotted name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


@cache
def imports(module: str) -> tuple[Import, ...]:
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return tuple(imports_of(path.read_text(encoding="utf-8"), package))


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def module_of(name: str) -> str | None:
    """The project's module an imported name lies in: itself, or the one that defines it."""
    for candidate in (name, name.rpartition(".")[0]):
        if candidate in modules():
            return candidate
    return None


def loaded_by(module: str) -> Iterator[tuple[str, Import]]:
    """What happens when a module is loaded: each import with the module it stands in, packages included."""
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += [parent for parent in (name.rpartition(".")[0],) if parent in modules()]
        for imported in imports(name):
            if imported.at_import:
                yield name, imported
                if inside := module_of(imported.name):
                    waiting.append(inside)


def everywhere() -> Iterator[tuple[str, Import]]:
    return ((module, imported) for module in modules() for imported in imports(module))


def shown(module: str, imported: Import) -> str:
    return f"{modules()[module].relative_to(ROOT)}:{imported.line} imports {imported.name}"


def layer_of(name: str) -> int:
    """The layer of a module: that of the longest prefix listed."""
    fitting = [(len(prefix), at) for at, layer in enumerate(LAYERS) for prefix in layer if within(name, prefix)]
    assert fitting, f"{name} belongs to no layer: list it"
    return max(fitting)[1]


def package_of(name: str) -> str:
    return next(home for home in ("xadapt_cli", ".".join(name.split(".")[:2])) if within(name, home))


def test_the_reader_sees_what_python_does() -> None:
    source = textwrap.dedent("""
        import torch.nn as nn
        from typing import TYPE_CHECKING
        from . import sibling
        from ..errors import UserError
        if TYPE_CHECKING:
            import peft
        try:
            import tomllib
        except ImportError:
            from json import loads
        class Holder:
            import rich
            def method(self):
                from adapters import init
    """)
    found = {imported.name: imported.at_import for imported in imports_of(source, "xadapt.study")}
    assert found == {
        "torch.nn": True, "typing.TYPE_CHECKING": True, "xadapt.study.sibling": True, "xadapt.errors.UserError": True,
        "tomllib": True, "json.loads": True, "rich": True, "adapters.init": False,
    }  # fmt: skip


def test_the_project_is_read() -> None:
    assert len(modules()) > 40
    assert {"xadapt.study.plan", "xadapt.formats.features", "xadapt_cli.app"} <= set(modules())
    assert any(within(imported.name, "torch") for _, imported in loaded_by("xadapt.study.executors"))
    assert all(any(within(name, prefix) for name in modules()) for prefix in TORCH_FREE), "a stale entry"
    assert all(any(within(name, prefix) for name in modules()) for layer in LAYERS for prefix in layer)


@pytest.mark.parametrize("module", [name for name in modules() if within(name, *TORCH_FREE)])
def test_no_torch_where_answers_must_be_quick(module: str) -> None:
    heavy = [shown(origin, found) for origin, found in loaded_by(module) if within(found.name, *TORCH)]
    assert not heavy


def test_sources_load_table_libraries_only_when_they_read() -> None:
    names = [name for name in modules() if within(name, "xadapt.data", "xadapt.tasks", "xadapt.study.plan")]
    heavy = {shown(origin, i) for name in names for origin, i in loaded_by(name) if within(i.name, *TABLES)}
    assert not heavy


@pytest.mark.parametrize(
    ("libraries", "home"), [(("adapters", "peft"), "xadapt.regimes"), (("typer", "rich"), "xadapt_cli")]
)
def test_a_library_is_used_in_one_place(libraries: tuple[str, ...], home: str) -> None:
    users = {module: found for module, found in everywhere() if within(found.name, *libraries)}
    assert users, f"nobody uses {libraries}"
    assert not [shown(module, found) for module, found in users.items() if not within(module, home)]


@pytest.mark.parametrize(
    ("package", "shared"),
    [("xadapt.formats", {"features", "masking"}), ("xadapt.regimes", {"specs", "protocol"})],
)
def test_siblings_do_not_import_each_other(package: str, shared: set[str]) -> None:
    siblings = {name for name in modules() if name.startswith(f"{package}.")} - {f"{package}.{s}" for s in shared}
    assert len(siblings) >= 2
    wrong = [
        shown(module, found)
        for module in siblings
        for found in imports(module)
        if within(found.name, package) and not within(found.name, *(f"{package}.{name}" for name in shared))
    ]
    assert not wrong


def test_no_layer_imports_from_above_or_beside() -> None:
    wrong = []
    for module, found in everywhere():
        if not within(found.name, *FOLDERS) or module == "xadapt" or found.name == "xadapt.__version__":
            continue
        here, there = layer_of(module), layer_of(found.name)
        own = package_of(module) == package_of(found.name)
        beside = own or within(found.name, *BESIDE.get(package_of(module), ()))
        if there > here or (there == here and not beside):
            wrong.append(shown(module, found))
    assert not wrong


def test_the_library_prints_nothing() -> None:
    wrong = [
        f"{modules()[module].relative_to(ROOT)}:{node.lineno}"
        for module in modules()
        if within(module, "xadapt")
        for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong

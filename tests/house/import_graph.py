"""Who imports whom inside include/, and which arrows are allowed.

    dags -> callbacks, dag_defaults, names
    dags -> rag, inference, evaluation, training, usage -> documents, jobs, models -> storage, contracts, config, ...

A part may import what lies below it and, on its own level, only where that makes no circle; domains never import each
other. A new part of include/ is given its level here.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

LEVELS = [
    {"aws", "catalog", "config", "contracts", "errors", "lineage", "names", "release", "statistics", "storage"},
    {"documents", "jobs", "models"},
    {"rag", "inference", "evaluation", "training", "usage"},
    {"approval", "callbacks", "dag_defaults"},
]
DOMAINS = LEVELS[2]
OUTSIDE = {"dags", "plugins", "local", "tests"}


def wrong_arrows(include: Path) -> list[str]:
    """Imports that point upwards, sideways between domains, out of include/, or in a circle."""
    arrows = _arrows(include)
    level = {part: number for number, parts in enumerate(LEVELS) for part in parts}
    found = [
        f"include/{part} has no level; give it one in {Path(__file__).name}" for part in _parts(include) - set(level)
    ]
    for (part, to), where in sorted(arrows.items()):
        if to in OUTSIDE:
            found.append(f"{where}: include/{part} imports {to}/")
        elif part in DOMAINS and to in DOMAINS:
            found.append(f"{where}: the domain {part} imports the domain {to}; what both need moves down")
        elif level.get(to, -1) > level.get(part, len(LEVELS)):
            found.append(f"{where}: {part} imports {to}, which lies above it")
    return found + _circles(arrows)


def importers(root: Path, package: str) -> list[str]:
    """Files that import a package, at whatever place in them."""
    return [
        str(file.relative_to(root))
        for file in sorted(root.rglob("*.py"))
        if package in (text := file.read_text())
        and any(
            name.split(".")[0] == package
            for node in ast.walk(ast.parse(text))
            for name in _imported(node, file.relative_to(root))
        )
    ]


def _parts(include: Path) -> set[str]:
    """The modules and packages directly below include/."""
    names = {f.stem for f in include.glob("*.py")} | {f.parent.name for f in include.glob("*/*.py")}
    return names - {"__init__"}


def _arrows(include: Path) -> dict[tuple[str, str], str]:
    """(part, imported part) -> the line that imports; imports inside functions and for types count too."""
    arrows: dict[tuple[str, str], str] = {}
    for file in sorted(include.rglob("*.py")):
        path = file.relative_to(include)
        part = path.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            for name in _imported(node, path):
                top, _, rest = name.partition(".")
                to = rest.split(".")[0] if top == "include" else top
                if to != part and part != "__init__" and (top == "include" or top in OUTSIDE):
                    arrows.setdefault((part, to), f"include/{path}:{node.lineno}")
    return arrows


def _imported(node: ast.AST, path: Path) -> list[str]:
    """The full names that one statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = ".".join(("include", *path.parts)[: len(path.parts) + 1 - node.level]) if node.level else ""
    base = ".".join(filter(None, (package, node.module)))
    return [f"{base}.{alias.name}" for alias in node.names] if base == "include" else [base]


def _circles(arrows: dict[tuple[str, str], str]) -> list[str]:
    graph: dict[str, list[str]] = {}
    for part, to in sorted(arrows):
        graph.setdefault(part, []).append(to)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"circle: {' -> '.join(reversed(error.args[1]))}"]
    return []

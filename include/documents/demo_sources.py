"""Where documentation lies inside Airflow's packages, and how each kind becomes files, in a fixed order.

First what is small and answers most (configuration, command line, REST API, metrics, guides), then the reference,
package by package; within a package operators, sensors and their like come before what they are built on.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from html import escape
from importlib.metadata import Distribution, PackagePath
from typing import Any

from include.errors import UserError

_SHORTEST_DOCSTRING = 80
"""Characters; what is shorter repeats the name."""
_NOT_PUBLIC = {"tests", "example_dags", "migrations", "i18n", "node_modules"}
_METHODS = {"delete", "get", "patch", "post", "put"}
_KINDS = ["definitions", "bases", "operators", "sensors", "decorators", "transfers", "notifications", "hooks"]


class Package:
    """An installed distribution as the files that it installed."""

    def __init__(self, name: str, distribution: Distribution) -> None:
        self.name = name
        self.version = distribution.version
        self._distribution = distribution

    @cached_property
    def files(self) -> dict[str, PackagePath]:
        """Public files below airflow/ in the order of their paths; UserError if the installer left no list of them."""
        return {path: self.all_files[path] for path in sorted(self.all_files) if _is_public(path)}

    @cached_property
    def all_files(self) -> dict[str, PackagePath]:
        """The same with private files."""
        if self._distribution.files is None:
            raise UserError(f"package {self.name} has no list of its files (RECORD): install it with pip or uv")
        return {file.as_posix(): file for file in self._distribution.files if file.parts[0] == "airflow"}

    def read(self, path: str) -> str:
        """The text of one of the files."""
        return self.files[path].read_text(encoding="utf-8")

    @property
    def description(self) -> tuple[str, str]:
        """The package's own page, and its suffix by its markup."""
        metadata: Any = self._distribution.metadata
        kind = (metadata.get("Description-Content-Type") or "text/plain").split(";")[0].strip()
        return metadata.get("Description") or "", {"text/markdown": ".md", "text/x-rst": ".rst"}.get(kind, ".txt")


def _is_public(path: str) -> bool:
    parts = path.removesuffix(".py").split("/")
    return not any(part in _NOT_PUBLIC or (part.startswith("_") and part != "__init__") for part in parts)


def documents(packages: list[Package]) -> Iterator[tuple[str, str]]:
    """Names and texts of all documents, those of the `demo` corpus first; a name comes once."""
    kinds: list[Callable[[Package], Iterator[tuple[str, str]]]]
    kinds = [_configuration, _command_line, _rest_api, _metrics, _guides, _reference]
    seen: set[str] = set()
    for kind in kinds:
        for package in packages:
            for name, text in kind(package):
                if text.strip() and name not in seen:
                    seen.add(name)
                    yield name, text.strip() + "\n"


def _configuration(package: Package) -> Iterator[tuple[str, str]]:
    sections: dict[str, Any] = {}
    for path in package.files:
        if path.endswith("/config_templates/config.yml"):
            sections |= _yaml(package.read(path))
        elif path.endswith("/get_provider_info.py"):
            sections |= _provider_info(package.read(path)).get("config") or {}
    for section, content in sections.items():
        is_core = package.name == "apache-airflow-core"
        parts = [f"# Configuration section [{section}]" + ("" if is_core else f" of {package.name}")]
        parts.append((content.get("description") or "").strip())
        for option, facts in (content.get("options") or {}).items():
            parts += [f"## {option}", *_option(section, option, facts)]
        name = section if is_core else f"{package.name.removeprefix('apache-airflow-providers-')}.{section}"
        yield f"configuration/{name}.md", "\n\n".join(part for part in parts if part)


def _option(section: str, option: str, facts: dict[str, Any]) -> Iterator[str]:
    yield (facts.get("description") or "").strip()
    variable = f"AIRFLOW__{section}__{option}".upper().replace(".", "_")
    lines = [f"- Environment variable: `{variable}`", f"- Type: {facts.get('type')}"]
    labels = {
        "default": "Default",
        "example": "Example",
        "version_added": "Added in version",
        "version_deprecated": "Deprecated since version",
        "deprecation_reason": "Reason",
        "see_also": "See also",
    }
    for key, label in labels.items():
        if (value := facts.get(key)) not in (None, ""):
            lines.append(f"- {label}: `{value}`" if key in ("default", "example") else f"- {label}: {value}")
    yield "\n".join(line.replace("\n", " ") for line in lines)


def _provider_info(source: str) -> dict[str, Any]:
    """What get_provider_info() returns, without calling it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
            value: dict[str, Any] = ast.literal_eval(node.value)
            return value
    return {}


def _command_line(package: Package) -> Iterator[tuple[str, str]]:
    for path in package.files:
        if path.endswith(("/cli/cli_config.py", "/cli/definition.py")):
            yield from _commands(ast.parse(package.read(path)))


def _commands(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """A page for each group of commands and one for those that stand alone, from the tables of the parser."""
    tables: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            tables[ast.unparse(target)] = node.value
    pages = [("airflow", "Commands that stand alone", "core_commands")]
    for call in _calls(tree, "GroupCommand"):
        group = _keywords(call)
        pages.append((f"airflow {_string(group['name'])}", _string(group["help"]), ast.unparse(group["subcommands"])))
    for command, meaning, table in pages:
        title = f"Command line: {escape(command)}"
        parts = [
            f"<html>\n<head><title>{title}</title></head>\n<body>",
            f"<h1>{title}</h1>",
            f"<p>{escape(meaning)}</p>",
        ]
        actions = list(_calls(tables.get(table), "ActionCommand"))
        for action in actions:
            parts += _command(command, _keywords(action), tables)
        if actions:
            yield f"cli/{_slug(command)}.html", "\n".join([*parts, "</body>\n</html>"])


def _command(group: str, action: dict[str, ast.expr], tables: dict[str, ast.expr]) -> Iterator[str]:
    yield f"<h2>{escape(group)} {escape(_string(action['name']))}</h2>"
    for key in ("help", "description", "epilog"):
        if text := _string(action.get(key)):
            yield f"<p>{escape(text)}</p>" if key != "epilog" else f"<pre>{escape(text)}</pre>"
    yield "<ul>"
    for name in ast.walk(action["args"]):
        for argument in _calls(tables.get(name.id), "Arg") if isinstance(name, ast.Name) else ():
            facts = _keywords(argument)
            flags = ", ".join(ast.literal_eval(facts["flags"]))
            yield f"<li><code>{escape(flags)}</code>: {escape(_string(facts.get('help')))}</li>"
    yield "</ul>"


def _calls(tree: ast.AST | None, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    """A call's arguments by name; Arg's two first ones may come without."""
    named = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    return dict(zip(("flags", "help"), call.args, strict=False)) | named


def _string(node: ast.AST | None) -> str:
    """The text of a string expression, as far as it can be known without running it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(map(_string, ast.iter_child_nodes(node))) if node else ""


def _rest_api(package: Package) -> Iterator[tuple[str, str]]:
    tags: dict[str, list[dict[str, str]]] = defaultdict(list)
    for path in package.files:
        if re.search(r"/openapi/[^/]+\.yaml$", path):
            specification = _yaml(package.read(path))
            for url, methods in specification["paths"].items():
                for method in [one for one in methods if one in _METHODS]:
                    operation, place = methods[method], f"{method.upper()} {url}"
                    record = {"id": operation.get("operationId") or place}
                    record["title"] = f"{operation.get('summary') or ''} ({place})".strip()
                    record["text"] = _operation(operation, specification)
                    tags[(operation.get("tags") or ["other"])[0]].append(record)
    for tag, records in tags.items():
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        yield f"rest-api/{_slug(tag)}.jsonl", "\n".join(lines)


def _operation(operation: dict[str, Any], specification: dict[str, Any]) -> str:
    parts = [operation.get("description") or operation.get("summary") or ""]
    for parameter in operation.get("parameters") or ():
        if "name" not in parameter:
            continue  # a reference to one that many operations share
        # Their further sentences are the same for dozens of operations.
        meaning = re.split(r"(?<=\.)\s", parameter.get("description") or "")[0]
        parts.append(f"- {parameter['in']} parameter `{parameter['name']}`" + (f": {meaning}" if meaning else ""))
    body = (operation.get("requestBody") or {}).get("content", {}).get("application/json", {}).get("schema", {})
    schemas = (specification.get("components") or {}).get("schemas") or {}
    schema = schemas.get(body.get("$ref", "").rpartition("/")[2], {})
    if fields := schema.get("properties"):
        parts.append("- body: a JSON object of " + ", ".join(f"`{field}`" for field in fields))
    return "\n".join(part.strip() for part in parts)


def _metrics(package: Package) -> Iterator[tuple[str, str]]:
    # The only documentation that lies in a private folder.
    if package.name != "apache-airflow-core":
        return
    for path, file in package.all_files.items():
        if path.endswith("/metrics_template.yaml"):
            kinds: dict[str, list[str]] = defaultdict(list)
            for metric in _yaml(file.read_text(encoding="utf-8"))["metrics"]:
                description = " ".join(metric["description"].split())
                kinds[metric["type"]].append(f"{metric['name']} ({metric['type']}): {description}")
            for kind, lines in kinds.items():
                yield f"metrics/{kind}s.txt", f"Airflow metrics of type {kind}\n\n" + "\n".join(lines)


def _guides(package: Package) -> Iterator[tuple[str, str]]:
    text, suffix = package.description
    yield f"guides/{package.name}{suffix}", _without_comments(text)
    for path in package.files:
        # Capitals alone: rules for who changes the package, not documentation of it.
        if path.endswith(".md") and not path.endswith(("/AGENTS.md", "/CLAUDE.md")):
            name = _slug(path.removesuffix(".md").replace("/", "."))
            yield f"guides/{name}.md", _without_comments(package.read(path))


def _without_comments(text: str) -> str:
    """Without the licence and the notes to editors: HTML comments, and the explicit comments of reStructuredText."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"^\.\.[ \t]+(?![\w-]+::|[_|[])\S.*\n(?:[ \t]+\S.*\n)*", "", text, flags=re.MULTILINE)


def _reference(package: Package) -> Iterator[tuple[str, str]]:
    for path in sorted((path for path in package.files if path.endswith(".py")), key=_rank):
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        found = [(names, text) for names, text in _docstrings(ast.parse(package.read(path)), ()) if text]
        if found:
            parts = [f"# {module}"]
            for names, text in found:
                if names:
                    parts.append(f"{'#' * min(len(names) + 1, 6)} {'.'.join(names)}")
                parts.append(_without_headings(text))
            yield f"reference/{module}.md", "\n\n".join(parts)


def _without_headings(text: str) -> str:
    """A docstring whose titles and code comments Markdown does not take for headings, which would end the one above."""
    text = re.sub(r"^(\S.*)\n[-=]{3,}[ \t]*$", r"**\1**", text, flags=re.MULTILINE)
    return re.sub(r"^ {0,3}(?=#)", "    ", text, flags=re.MULTILINE)


def _rank(path: str) -> tuple[int, str]:
    kinds = [_KINDS.index(part) for part in path.removesuffix(".py").split("/") if part in _KINDS]
    return min(kinds, default=len(_KINDS)), path


def _docstrings(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Docstrings of a module and of what is public in it, each with its path of names, in the order of the source."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node) or ""
        if len(text) >= _SHORTEST_DOCSTRING and ":meta private:" not in text:
            yield names, text
    if isinstance(node, ast.Module | ast.ClassDef):
        for inner in node.body:
            if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and inner.name[0] != "_":
                yield from _docstrings(inner, (*names, inner.name))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-")


def _yaml(text: str) -> Any:
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)

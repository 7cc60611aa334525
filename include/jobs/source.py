"""The code of a job: its script and all of include/ that the script imports, found without importing any of it."""

from __future__ import annotations

import ast
import io
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import include
from include.errors import UserError
from include.storage import digest

FOLDER = Path(include.__file__).resolve().parent
HARNESS = "include.jobs.harness"
ENTRY = "fmops_job.py"
"""What a container starts; beside it lies include/."""
_ENTRY_CODE = f"from {HARNESS} import main\n\nif __name__ == '__main__':\n    main()\n"


@dataclass(frozen=True, slots=False)
class Source:
    """Files of include/ by their path in the project, sorted, with their bytes."""

    files: tuple[tuple[str, bytes], ...]

    @cached_property
    def digest(self) -> str:
        """Of paths and bytes: whoever changes the script or what it imports has another job."""
        return digest(*(part for file in self.files for part in file))[:32]

    def pack(self) -> bytes:
        """A tar.gz that is the same for the same files."""
        import gzip

        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for path, data in (*self.files, (ENTRY, _ENTRY_CODE.encode())):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
        return gzip.compress(raw.getvalue(), mtime=0)


def read_source(script: str) -> Source:
    """The script, the harness, and what of include/ they import; UserError if there is no such script."""
    if not _file(script).is_file():
        raise UserError(f"script={script!r}: there is no {_file(script).relative_to(FOLDER.parent)}")
    found: dict[str, bytes] = {}
    left = [script, HARNESS]
    while left:
        module = left.pop()
        path = _file(module)
        name = path.relative_to(FOLDER.parent).as_posix()
        if name in found:
            continue
        found[name] = path.read_bytes()
        left += _imported(module, found[name])
        left += [".".join(module.split(".")[:end]) for end in range(1, module.count(".") + 1)]  # its packages
    return Source(tuple(sorted(found.items())))


def _file(module: str) -> Path:
    path = FOLDER.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(module: str, code: bytes) -> list[str]:
    """The modules of include/ that some code names in an import, wherever in it; those for type checkers too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(code, module)):
        if isinstance(node, ast.Import):
            names += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
    return [name for name in names if name.split(".")[0] == "include" and _file(name).is_file()]

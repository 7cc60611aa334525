"""Runs a script inside a job and gives it one contract, wherever the job runs.

The contract is that of a SageMaker training job (`/opt/ml`, `SM_*`); a processing job's folders, arguments and hosts
are mapped onto it. FMOPS_ML_ROOT moves /opt/ml elsewhere. The standard library alone, Python 3.10 or newer: in a
container nothing else of the project's needs is there.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from itertools import count, takewhile
from pathlib import Path
from typing import Any, TypeVar

from include.jobs import guard
from include.jobs.checkpoints import Checkpoints, list_files, write_json

log = logging.getLogger(__name__)

T = TypeVar("T", bool, int, float, str)

MANIFEST = "manifest.json"
HYPERPARAMETERS = "FMOPS_HYPERPARAMETERS"
PROGRESS = "fmops-progress"
PROGRESS_EVERY_S = 2.0
OWN = ("fmops_", "sagemaker_")
"""First letters of hyper-parameters that are the machinery's."""
EXIT_CODES = {"BadInput": 64, "OutOfMemory": 137, "UserCode": 1}
REASON_CHARACTERS = 1000
"""SageMaker shows the first 1024 of a failure."""


class BadInput(ValueError):
    """A channel or a hyper-parameter cannot be used; the message names it, its value and what is allowed."""


class Job:
    """What a script is given: its inputs, where to write, how to tell its progress, and its checkpoints."""

    def __init__(self, environment: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        self._environment = environment
        self._root = Path(environment.get("FMOPS_ML_ROOT", "/opt/ml"))
        self._is_processing = "SM_MODEL_DIR" not in environment and (self._root / "processing").is_dir()
        given = _hyperparameters(environment, arguments, self._root)
        self.script = str(given.get("fmops_script", ""))
        self.hyperparameters = {name: value for name, value in given.items() if not name.startswith(OWN)}
        self.model_dir = self._folder("SM_MODEL_DIR", "processing/output" if self._is_processing else "model")
        self.output_data_dir = self._folder("SM_OUTPUT_DATA_DIR", "output/data")
        self.checkpoint_dir = self._folder("SM_CHECKPOINT_DIR", "checkpoints")
        self.hosts, self.host = _hosts(environment, self._root)
        self.rank = self.hosts.index(self.host)
        self.checkpoints = Checkpoints(self.checkpoint_dir)
        self._progress: dict[str, Any] = {}
        self._first: tuple[int, float] | None = None
        """The first step that was told, and when."""
        self._told_at = -math.inf
        self._is_told = True

    def channel(self, name: str) -> Path:
        """The folder of an input; BadInput if there is none of that name."""
        default = self._root / ("processing/input" if self._is_processing else "input/data") / name
        folder = Path(self._environment.get(f"SM_CHANNEL_{name.upper()}", default))
        if not folder.is_dir():
            raise BadInput(f"channel {name!r} is missing: there is no folder {folder}")
        return folder

    def parameter(self, name: str, default: T) -> T:
        """A hyper-parameter, or the default; BadInput if it is not of the default's type."""
        value = self.hyperparameters.get(name, default)
        kind = type(default)
        if kind is float and type(value) is int:
            value = float(value)
        if kind is str and type(value) in (bool, int, float):  # a text that reads as JSON
            value = str(value)
        if type(value) is not kind:
            raise BadInput(f"hyper-parameter {name}={value!r} must be of type {kind.__name__}, such as {default!r}")
        return value

    def progress(self, step: int | None = None, of: int | None = None, **figures: Any) -> None:
        """Tell how far the work is; shown every few seconds, so it may be called at each step."""
        steps = {"step": step, "of": of, "left_s": self._left_s(step, of)}
        known = {name: value for name, value in steps.items() if value is not None}
        self._progress, self._is_told = {**known, **figures}, False
        if time.monotonic() - self._told_at >= PROGRESS_EVERY_S:
            self.tell()

    def _left_s(self, step: int | None, of: int | None) -> int | None:
        """Seconds until the last step, at the rate since the first that this generation told; None if unknown."""
        if step is None or of is None or step >= of:
            return None
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        first, at = self._first
        return round((of - step) * (now - at) / (step - first)) if step > first else None

    def tell(self) -> None:
        """Show the last progress, if it was not shown."""
        if self._is_told:
            return
        progress = finite(self._progress)
        sys.stdout.write(f"{PROGRESS} {json.dumps(progress, allow_nan=False)}\n")
        sys.stdout.flush()
        self._told_at, self._is_told = time.monotonic(), True
        if file := self._environment.get("FMOPS_PROGRESS_FILE"):
            try:
                write_json(Path(file), progress)
            except OSError as error:  # a full disk: the work itself may need none
                log.warning("progress is not noted: %s", error)

    def checkpoint_due(self, every_s: float) -> bool:
        """Whether so many seconds have passed since the last checkpoint, or since the start."""
        return self.checkpoints.due(every_s)

    def checkpoint(self, step: int) -> AbstractContextManager[Path]:
        """A folder to fill, which becomes the checkpoint of this step when the block ends without an error."""
        return self.checkpoints.save(step)

    def last_checkpoint(self) -> tuple[int, Path] | None:
        """Step and folder of the newest whole checkpoint of any generation of this job; None to begin anew."""
        return self.checkpoints.last()

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write the manifest: the output is whole from now on. Hosts but the first write one of their own name."""
        self.tell()
        name = MANIFEST if self.rank == 0 else f"manifest-{self.rank}.json"
        if (self.model_dir / name).exists():
            raise FileExistsError(f"the script wrote {name}, which is the harness's: choose another name")
        files = list_files(self.model_dir)
        manifest = {"schema_version": 1, "hosts": len(self.hosts), "files": files, "metrics": finite(dict(metrics))}
        write_json(self.model_dir / name, manifest)

    def _folder(self, variable: str, default: str) -> Path:
        folder = Path(self._environment.get(variable, self._root / default))
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def main() -> None:
    """Run the script that the hyper-parameter `fmops_script` names; exits with the code of the error's class."""
    environment, arguments = dict(os.environ), sys.argv[1:]
    guard.start(environment)
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run(environment, arguments)
    except BaseException as error:  # of any class, a script's sys.exit() too: it did not come to its end
        traceback.print_exc()
        kind, reason = told(error)
        for file in _failure_files(environment):
            _write_reason(file, f"{kind}: {reason}")
        sys.exit(EXIT_CODES[kind])


def run(environment: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
    """Run the script, then write the manifest; whatever it raises goes through, with its last progress told."""
    job = Job(environment, arguments)
    if not job.script:
        raise BadInput("hyper-parameter fmops_script is missing: it names the script's module")
    if not job.script.startswith("include.") or not _is_there(job.script):
        raise BadInput(f"fmops_script={job.script!r}: there is no such module in the job's source")
    script = import_module(job.script)
    if not callable(getattr(script, "main", None)):
        raise BadInput(f"fmops_script={job.script!r} has no function main(job)")
    try:
        metrics = script.main(job)
    finally:
        job.tell()
    if metrics is not None and not isinstance(metrics, dict):
        raise TypeError(f"{job.script}.main() returned a {type(metrics).__name__}, not a dict of figures or None")
    job.finish(metrics or {})


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is not there
        return False


def told(error: BaseException) -> tuple[str, str]:
    """Class and reason of an error, the reason in one line with the place in the code."""
    text = " ".join(str(error).split())
    if isinstance(error, BadInput):
        return "BadInput", text
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return "OutOfMemory", text or "no memory was left"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return "UserCode", f"{type(error).__name__}: {text[: REASON_CHARACTERS - 100]}{place}"


def finite(value: Any) -> Any:
    """A value as JSON can hold it: None for NaN and infinities; numbers of NumPy and the like as Python's."""
    if isinstance(value, Mapping):
        return {str(name): finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    if hasattr(value, "item") and not isinstance(value, (bool, int, float, str)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _hyperparameters(environment: Mapping[str, str], arguments: Sequence[str], root: Path) -> dict[str, Any]:
    """From the first place that has any: a processing job's variable or argument, training's file, SM_HPS."""
    file = root / "input" / "config" / "hyperparameters.json"
    for place, text in _texts(environment, arguments, file):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise BadInput(f"hyper-parameters in {place} are not JSON: {error}") from None
        if not isinstance(found, dict):
            raise BadInput(f"hyper-parameters in {place} are not a JSON object")
        return {name: _decoded(value) for name, value in found.items()}
    return {}


def _texts(environment: Mapping[str, str], arguments: Sequence[str], file: Path) -> Iterator[tuple[str, str]]:
    if first := environment.get(HYPERPARAMETERS):  # and as many more as a service's limit on one variable makes
        rest = takewhile(bool, (environment.get(f"{HYPERPARAMETERS}_{number}") for number in count(2)))
        yield HYPERPARAMETERS, first + "".join(filter(None, rest))
    for argument in arguments:
        if argument.startswith("{"):
            yield "the argument", argument
    if file.is_file():
        yield str(file), file.read_text(encoding="utf-8")
    if "SM_HPS" in environment:
        yield "SM_HPS", environment["SM_HPS"]


def _decoded(value: Any) -> Any:
    """A text that is JSON as its value; any other as it is, also NaN, which is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_refuse)
    except ValueError:
        return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _hosts(environment: Mapping[str, str], root: Path) -> tuple[list[str], str]:
    """All hosts of the job in one order on each of them, and this one's name."""
    for file in (root / "config" / "resourceconfig.json", root / "input" / "config" / "resourceconfig.json"):
        if file.is_file():
            found = json.loads(file.read_bytes())
            return sorted(found["hosts"]), str(found["current_host"])
    host = environment.get("SM_CURRENT_HOST", "algo-1")
    return sorted(json.loads(environment.get("SM_HOSTS", json.dumps([host])))), host


def _failure_files(environment: Mapping[str, str]) -> list[Path]:
    """Where the reason is looked for: training shows `failure`, processing the first kilobyte of `message`."""
    if named := environment.get("FMOPS_FAILURE_FILE"):
        return [Path(named)]
    output = Path(environment.get("FMOPS_ML_ROOT", "/opt/ml")) / "output"
    return [output / "failure", output / "message"]


def _write_reason(file: Path, reason: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        text = reason.encode("utf-8", "backslashreplace")[:REASON_CHARACTERS].decode("utf-8", "ignore")
        file.write_text(text, encoding="utf-8")  # processing fails for another reason if half a character is there
    except OSError as error:  # the exit code tells the class as well
        log.error("the reason is not noted: %s", error)

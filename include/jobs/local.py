"""Jobs as processes of this machine: a folder for each, kept by a supervisor that outlives whoever started it.

Whether a job lives is told by its heartbeat's age on the folder's own clock, never by a process id: those who look may
be in another container. How a job ended is told by status.json, which appears once (see include/jobs/verdict.py).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from include.config import PROJECT, Settings
from include.errors import UserError
from include.jobs.guard import ALL, ENDED
from include.jobs.images import WORKER
from include.jobs.source import read_source
from include.jobs.spec import OWNER_TAG, JobSpec, Named
from include.jobs.states import JobExistsError, LostError, Status
from include.jobs.verdict import LOST, ROOM, ROOM_BYTES, STATUS, decide, decide_lost, is_decided, verdict
from include.storage import is_local, local_uri, location, write_bytes

log = logging.getLogger(__name__)

NAME = r"[a-z0-9-]{1,80}-g[0-9]{1,3}"
KEPT = re.compile(
    "HOME|LANG|LC_[A-Z]+|LOGNAME|PATH|TMPDIR|TZ|USER|LD_LIBRARY_PATH|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
    "|(CUDA|NVIDIA|NCCL|OMP|MKL|OPENBLAS|PYTORCH)_[A-Z_]+"
)
"""Variables that a job gets of those of whoever starts it. No credentials: they are Airflow's, not the script's."""
SUPERVISOR = ("-m", "include.jobs.supervisor")
STAMP = ".fmops-stamp"
"""In an environment that the project made; empty until it is whole (see local/setup_environment.py)."""
TORCH = ("safetensors", "tokenizers", "torch", "transformers")
"""Packages that jobs of the images torch-cpu and torch-gpu import; the jobs environment has them, Airflow's has not."""
LITTLE_DISK = 2**30
START_S = 30.0
"""What a supervisor may take for its first beat; a busy machine starts Python slowly."""
LOOK_S = 2.0
"""Between two looks at a job: reading a few small files costs little."""
CONFIRM_S = 3.0
"""How long a silent heartbeat is looked at before it counts: a machine that wakes, or a clock set forward."""
CLOCK_S = 2.0
"""A heartbeat so far in the future means that the clock was set back."""
LOG_BYTES, LOG_LINES, LOG_CHARACTERS = 2**20, 500, 10_000


class LocalBackend:
    """Jobs on this machine, or on one that shares its job folder."""

    name = "local"
    inline_poll_s = 0.25

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.poll_s = min(LOOK_S, settings.job_poll_s)
        self.start_s = max(START_S, settings.job_lost_after_s)

    @property
    def folder(self) -> Path:
        """Where all jobs have their folders; UserError if the settings name no place for them."""
        if self._settings.job_folder:
            return Path(self._settings.job_folder).expanduser().absolute()
        root = location(self._settings.root)
        if not is_local(root):
            raise UserError(
                f"job_folder is not set and storage_root={self._settings.root!r} is no folder: set FMOPS_JOB_FOLDER "
                "for job_backend=local, or choose job_backend=sagemaker"
            )
        return Path(root.path) / "jobs"

    @property
    def python(self) -> Path:
        """The Python that runs jobs; UserError if the setting names none."""
        beside = PROJECT / ".venv-jobs"
        stamp = beside / STAMP
        is_whole = stamp.is_file() and stamp.stat().st_size > 0
        default = beside / "bin" / "python" if is_whole else Path(sys.executable)
        python = Path(self._settings.job_python or default).expanduser()
        if not os.access(python, os.X_OK):
            raise UserError(
                f"job_python={str(python)!r} cannot be run: set FMOPS_JOB_PYTHON to the Python of an environment "
                "made from requirements-jobs.txt, or unset it; `make setup-jobs` makes one"
            )
        return python

    def check(self, named: Named) -> None:
        """UserError in one line if the job cannot run here; a warning if the disk is nearly full."""
        read_source(named.spec.script)
        _channels(named.spec)
        _check_packages(self.python_of(named.spec), named.spec)
        place = self.folder
        place.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(place).free) < LITTLE_DISK:
            log.warning("%s has %d MiB left: a job that writes more fails", place, free // 2**20)

    def submit(self, named: Named, name: str, owner: str) -> None:
        """Make its folder and start its supervisor, which is nobody's child."""
        folder, job_id = self._of(name), f"{name}.{uuid.uuid4().hex}"
        python = str(self.python_of(named.spec))
        command = [python, *SUPERVISOR, "--detach", str(folder), str(self._settings.job_lost_after_s)]
        environment = _environment(folder, named, job_id)
        draft = folder.with_name(f".{name}.{uuid.uuid4().hex}")
        try:
            self._fill(draft, named, owner, job_id)
            try:
                draft.rename(folder)
            except OSError:
                if folder.exists():
                    raise JobExistsError(name) from None
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._start(folder, command, environment)

    def describe(self, kind: str, name: str) -> Status | None:
        """What its folder tells; a job whose heartbeat is silent is declared lost, and its processes here are ended."""
        folder = self._of(name)
        if not folder.is_dir():
            return None
        if not is_decided(folder) and self._is_silent(folder) and decide_lost(folder):
            log.warning("%s is lost: its supervisor does not beat any more", name)
            _kill(folder)
        return _status(folder, name)

    def claim(self, kind: str, name: str, owner: str) -> None:
        """Write the owner file."""
        if self._of(name).is_dir():
            write_bytes(location(f"file://{self._of(name) / 'owner'}"), owner.encode())

    def owner(self, kind: str, name: str) -> str | None:
        """What the owner file says."""
        try:
            return (self._of(name) / "owner").read_text("utf-8")
        except FileNotFoundError:
            return None

    def stop(self, kind: str, name: str) -> None:
        """Write the stop file, which the supervisor looks for at each beat."""
        folder = self._of(name)
        if folder.is_dir() and not is_decided(folder):
            (folder / "stop").touch()

    def log(self, kind: str, name: str, after: Any = None) -> tuple[list[str], Any]:
        """Lines after the byte `after`; one that is not at its end yet is left for the next call."""
        folder, start = self._of(name), int(after or 0)
        is_over = is_decided(folder)  # before it is read: nothing is written after it
        try:
            with (folder / "log").open("rb") as file:
                file.seek(start)
                data = file.read(LOG_BYTES)
        except FileNotFoundError:
            return [], start
        end = data.rfind(b"\n") + 1
        if (is_over and len(data) < LOG_BYTES) or (not end and len(data) == LOG_BYTES):
            end = len(data)  # the last line of all, or one that is longer than what is read at once
        lines = BytesIO(data[:end]).readlines()[:LOG_LINES]
        return [_shown(line) for line in lines], start + sum(map(len, lines))

    def watch(self, kind: str, name: str) -> tuple[str, dict[str, Any]]:
        """What waits for it in the triggerer, which sees the same folder."""
        place = {"folder": str(self._of(name)), "lost_after_s": self._settings.job_lost_after_s}
        return "fmops_plugins.jobs.LocalTrigger", place

    def find(self, tags: Mapping[str, str]) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Jobs without an end; one of them may turn out to be lost when it is described."""
        if not self.folder.is_dir():
            return
        for spec_file in sorted(self.folder.glob("[!.]*/spec.json")):
            if is_decided(spec_file.parent):
                continue
            spec = Named.model_validate_json(spec_file.read_bytes()).spec
            if tags.items() <= spec.tags.items():
                name = spec_file.parent.name
                yield spec.kind, name, spec.tags | {OWNER_TAG: self.owner(spec.kind, name) or ""}

    def _of(self, name: str) -> Path:
        """The folder of a job; UserError for a name that cannot be one's."""
        if not re.fullmatch(NAME, name):
            raise UserError(f"job name {name!r} must match {NAME}")
        return self.folder / name

    def python_of(self, spec: JobSpec) -> Path:
        """The running Python for what needs the workers' environment, else that of the jobs environment."""
        return Path(sys.executable) if spec.resources.image == WORKER else self.python

    def _fill(self, folder: Path, named: Named, owner: str, job_id: str) -> None:
        """All that the supervisor needs; room on the disk for what it must be able to write."""
        spec = named.spec
        for part in ("source", "work", "output", "input/config"):
            (folder / part).mkdir(parents=True)
        with tarfile.open(fileobj=BytesIO(read_source(spec.script).pack())) as tar:
            tar.extractall(folder / "source", filter="data")
        parameters = {"fmops_script": spec.script, **spec.hyperparameters}
        encoded = {name: json.dumps(value) for name, value in parameters.items()}  # texts, as SageMaker hands them on
        silent = "its supervisor was silent for longer than it may: it, or its machine, is gone"
        texts = {
            "spec.json": named.model_dump_json(indent=1),
            "input/config/hyperparameters.json": json.dumps(encoded),
            "owner": owner,
            "id": job_id,
            "heartbeat": "",
            "probe": "",
            LOST: json.dumps(verdict("failed", "lost", silent)),
            ROOM: " " * ROOM_BYTES,
        }
        for path, text in texts.items():
            (folder / path).write_text(text, encoding="utf-8")

    def _start(self, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        """Start the supervisor, and wait until it has detached itself; LostError, and a verdict, if it did not."""
        try:
            with (folder / "supervisor.log").open("ab") as file:
                subprocess.run(
                    command,
                    cwd=folder / "work",
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    check=True,
                    timeout=self.start_s,
                )
        except (OSError, subprocess.SubprocessError) as error:
            last = (folder / "supervisor.log").read_text("utf-8", "replace").strip().rpartition("\n")[2]
            reason = f"its supervisor did not start: {last or error}"
            decide(folder, verdict("failed", "lost", reason), f"status.{uuid.uuid4().hex}")
            raise LostError(f"{folder.name}: {reason}") from None

    def _is_silent(self, folder: Path) -> bool:
        """Whether the heartbeat is older than it may be, by the clock of the file system that keeps it."""
        heartbeat, probe = folder / "heartbeat", folder / "probe"
        beat = heartbeat.stat().st_mtime
        probe.touch()
        age = probe.stat().st_mtime - beat
        if age < -CLOCK_S:  # the clock was set back: it begins anew, and a supervisor that lives beats on
            os.utime(heartbeat)
            return False
        has_started = (folder / "started.json").exists()
        if age <= (self._settings.job_lost_after_s if has_started else self.start_s):
            return False
        until = time.monotonic() + CONFIRM_S
        while time.monotonic() < until:
            if heartbeat.stat().st_mtime != beat:
                return False
            time.sleep(CONFIRM_S / 20)
        return True


def _check_packages(python: Path, spec: JobSpec) -> None:
    """UserError if the Python lacks a package that a job of its image imports; none is imported here."""
    if not spec.resources.image.startswith("torch-"):
        return
    code = "import importlib.util, sys; print(*(one for one in sys.argv[1:] if importlib.util.find_spec(one) is None))"
    done = subprocess.run([str(python), "-c", code, *TORCH], capture_output=True, text=True, timeout=60)
    if missing := done.stdout.split():
        raise UserError(
            f"job {spec.name} needs {', '.join(missing)}, which {python} has not: run `make setup-jobs`, which makes "
            "the environment of jobs or brings it up to date, or set FMOPS_JOB_PYTHON to a Python that has them"
        )


def _channels(spec: JobSpec) -> dict[str, str]:
    """Folder of each channel; UserError for one that is none."""
    found = {}
    for name, uri in spec.channels.items():
        place = location(uri)
        if not is_local(place):
            raise UserError(
                f"channel {name}={uri!r}: local jobs read folders (file:///...): copy it to one, or choose "
                "job_backend=sagemaker"
            )
        if not place.is_dir():
            raise UserError(f"channel {name}={uri!r} is no folder")
        found[name] = str(place.path)
    return found


def _environment(folder: Path, named: Named, job_id: str) -> dict[str, str]:
    """What the supervisor and the job find in theirs: SageMaker training's contract, moved into the folder."""
    kept = {name: value for name, value in os.environ.items() if re.fullmatch(KEPT, name)}
    channels = _channels(named.spec)
    return (
        kept
        | {f"SM_CHANNEL_{name.upper()}": path for name, path in channels.items()}
        | {
            "SM_MODEL_DIR": str(folder / "output"),
            "SM_OUTPUT_DATA_DIR": str(folder / "work" / "data"),
            "SM_CHECKPOINT_DIR": str(folder.parent / "checkpoints" / named.job_digest),
            "SM_CURRENT_HOST": "algo-1",
            "SM_HOSTS": '["algo-1"]',
            "FMOPS_ML_ROOT": str(folder),
            "FMOPS_PROGRESS_FILE": str(folder / "progress.json"),
            "FMOPS_FAILURE_FILE": str(folder / "failure"),
            ALL: job_id,
            ENDED: str(folder / STATUS),
            "PYTHONPATH": str(PROJECT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        }
    )


def _status(folder: Path, name: str) -> Status:
    """What the files of a folder tell now."""
    started, found = _json(folder / "started.json"), None
    began, beat = _changed(folder / "started.json"), _changed(folder / "heartbeat")
    lasted_s = max(0.0, beat - began) if began else 0.0
    if is_decided(folder):
        found = _json(folder / STATUS) or verdict("failed", "lost", f"{STATUS} cannot be read: its disk lost it")
    is_stopping = (folder / "stop").exists()
    state = "stopping" if is_stopping else "running" if began else "starting"
    told = found or {"state": state, "cause": None, "message": ""}
    ended_at = told.get("ended_at") or datetime.fromtimestamp(beat, UTC).isoformat()
    return Status(
        name=name,
        state=told["state"],
        cause=told["cause"],
        message=told["message"],
        started_at=datetime.fromisoformat(started["started_at"]) if started else None,
        ended_at=datetime.fromisoformat(ended_at) if found else None,
        stop_asked_at=datetime.fromtimestamp(_changed(folder / "stop"), UTC) if is_stopping else None,
        billed_s=told.get("billed_s", round(lasted_s, 3)),
        output_uri=local_uri(folder / "output"),
        progress=_json(folder / "progress.json"),
    )


def _json(file: Path) -> dict[str, Any]:
    """What a file holds; nothing if it is not there, or not whole."""
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _changed(file: Path) -> float:
    """When a file was changed, by its file system's clock; 0.0 if it is not there."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _shown(line: bytes) -> str:
    """A line as a terminal would leave it: of a bar that was drawn over itself, the last state."""
    return line.rstrip(b"\r\n").rpartition(b"\r")[2].decode("utf-8", "replace")[:LOG_CHARACTERS]


def _kill(folder: Path) -> None:
    """End what is left of a lost job on this machine; elsewhere its guard ends it (see include/jobs/guard.py)."""
    from include.jobs import processes

    job_id = (folder / "id").read_text("utf-8")
    until = time.monotonic() + CONFIRM_S
    while (left := processes.of_job(job_id)) and time.monotonic() < until:
        processes.kill(left)
        processes.wait(left, CONFIRM_S)

"""What runs a job's script as SageMaker would: an /opt/ml tree, the environment of its containers, and a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.aws import keeper
from tests.aws.transfer import unpack

ML = "/opt/ml"
TOOLKIT = (  # hyper-parameters that sagemaker-training keeps from the script
    "sagemaker_program",
    "sagemaker_submit_directory",
    "sagemaker_enable_cloudwatch_metrics",
    "sagemaker_region",
    "sagemaker_container_log_level",
    "sagemaker_job_name",
    "default_user_module_name",
    "_tuning_objective_metric",
    "sagemaker_s3_output",
)
LINES_AT_ONCE = 5_000
LINE_BYTES = 200_000
"""What CloudWatch Logs takes in one call and in one event, with room to spare."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One of the machines of a job: its folder plays /opt/ml."""

    number: int
    hosts: list[str]
    instance_type: str
    ml: Path

    @property
    def host(self) -> str:
        return self.hosts[self.number]

    def place(self, path: str) -> Path:
        """Where a path of the container lies here."""
        return self.ml / path.removeprefix(ML).lstrip("/")

    def write_config(self, folder: str, files: Mapping[str, Any]) -> None:
        """The service's JSON files, resourceconfig.json among them."""
        resources = {
            "current_host": self.host,
            "current_instance_type": self.instance_type,
            "hosts": self.hosts,
            "network_interface_name": "eth0",
        }
        place = self.ml / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, value in {**files, "resourceconfig": resources}.items():
            (place / f"{name}.json").write_text(json.dumps(value))


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a container starts with."""

    argv: list[str]
    cwd: Path
    environment: dict[str, str]
    by_toolkit: bool = False
    """sagemaker-training runs the script: it reports a failure in its own words, and ends with exit code 1."""


def decode(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Values as the toolkit reads them: JSON where they are, else text."""
    decoded = {}
    for name, value in hyperparameters.items():
        try:
            decoded[name] = json.loads(value)
        except ValueError:
            decoded[name] = value
    return decoded


def toolkit_command(
    instance: Instance, python: str, hyperparameters: Mapping[str, str], channels: Mapping[str, Any], archive: Path
) -> Command:
    """Unpack the source and run its program, with `--name value` for each hyper-parameter, as the toolkit does."""
    given = decode(hyperparameters)
    own = {name: value for name, value in given.items() if name not in TOOLKIT}
    code = instance.place("/opt/ml/code")
    unpack(archive, code)
    arguments = []
    for name in sorted(own):
        value = own[name]
        if isinstance(value, dict):
            value = ",".join(f"{key}={item}" for key, item in sorted(value.items()))
        arguments += [f"--{name}" if len(name) > 1 else f"-{name}", "" if value is None else str(value)]
    program = str(given["sagemaker_program"])
    environment = toolkit_environment(instance, own, channels, program, arguments)
    return Command(argv=[python, program, *arguments], cwd=code, environment=environment, by_toolkit=True)


def toolkit_environment(
    instance: Instance, own: Mapping[str, Any], channels: Mapping[str, Any], program: str, arguments: list[str]
) -> dict[str, str]:
    """The SM_* variables; structures as JSON, all else as text."""
    values: dict[str, Any] = {
        "HOSTS": instance.hosts,
        "CURRENT_HOST": instance.host,
        "CURRENT_INSTANCE_TYPE": instance.instance_type,
        "NETWORK_INTERFACE_NAME": "eth0",
        "HPS": dict(own),
        "USER_ENTRY_POINT": program,
        "MODULE_NAME": program.removesuffix(".py"),
        "MODULE_DIR": str(instance.place("/opt/ml/code")),
        "USER_ARGS": arguments,
        "CHANNELS": sorted(channels),
        "INPUT_DATA_CONFIG": dict(channels),
        "NUM_CPUS": os.cpu_count() or 1,
        "NUM_GPUS": 0,
        "LOG_LEVEL": 20,
        "MODEL_DIR": str(instance.place("/opt/ml/model")),
        "INPUT_DIR": str(instance.place("/opt/ml/input")),
        "INPUT_CONFIG_DIR": str(instance.place("/opt/ml/input/config")),
        "OUTPUT_DIR": str(instance.place("/opt/ml/output")),
        "OUTPUT_DATA_DIR": str(instance.place("/opt/ml/output/data")),
        **{f"CHANNEL_{name.upper()}": str(instance.place(f"/opt/ml/input/data/{name}")) for name in channels},
        **{f"HP_{name.upper()}": value for name, value in own.items()},
    }
    return {f"SM_{name}": _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | tuple | bool) or value is None else str(value)


def image_command(instance: Instance, python: str, words: list[str]) -> Command:
    """A container's own command line; paths of the container and its python are put where they are here."""
    argv = [str(instance.place(word)) if word == ML or word.startswith(f"{ML}/") else word for word in words]
    if Path(argv[0]).name in ("python", "python3"):
        argv[0] = python
    return Command(argv=argv, cwd=instance.ml, environment={})


class Container:
    """A process in a group of its own. When it ends, all that it started ends too."""

    def __init__(
        self,
        command: Command,
        environment: Mapping[str, str],
        say: Callable[[list[str]], None],
        ended: Callable[[], None],
    ) -> None:
        self.command = command
        self.code: int | None = None
        """Of the process when it is over; negative: minus the signal's number."""
        self.last_line = ""
        self._environment = {**environment, **command.environment}
        self._say = say
        self._ended = ended
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()

    def start(self) -> None:
        """OSError if there is no such program."""
        self._process = subprocess.Popen(
            self.command.argv,
            cwd=self.command.cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._wait, args=(self._process,), daemon=True).start()

    def signal(self, number: int) -> None:
        """To the whole group; nothing happens to one that is over."""
        with self._lock:  # the process is not reaped under this lock, so that its number is still its own
            if self._process is not None and self.code is None:
                os.killpg(self._process.pid, number)

    def end(self, grace_s: float) -> None:
        """Make one that was asked to end do so after a while; returns when it is over."""
        if self._process is None:
            return
        if not self._over.wait(grace_s):
            self.signal(signal.SIGKILL)
            self._over.wait()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            os.killpg(process.pid, signal.SIGKILL)
            self.code = process.wait()
        reader.join(timeout=1)
        if reader.is_alive():  # somebody left the group and still holds the output
            keeper.kill(self._environment[keeper.MARK], self._environment[keeper.JOB])
            reader.join()
        self._over.set()
        self._ended()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        rest, is_cut = b"", False
        with process.stdout as stream:
            while chunk := os.read(stream.fileno(), 65_536):
                *lines, rest = (rest + chunk).split(b"\n")
                if is_cut and lines:
                    lines, is_cut = lines[not lines[0] :], False  # its end may be all that was left of a long line
                if len(rest) > LINE_BYTES:
                    lines, rest, is_cut = [*lines, rest], b"", True
                self._tell(lines)
        self._tell([rest] if rest else [])

    def _tell(self, lines: list[bytes]) -> None:
        told = [
            line[start : start + LINE_BYTES].decode(errors="replace").rstrip() or " "
            for line in lines
            for start in range(0, max(1, len(line)), LINE_BYTES)
        ]
        self.last_line = next((line for line in reversed(told) if line.strip()), self.last_line)
        for start in range(0, len(told), LINES_AT_ONCE):
            self._say(told[start : start + LINES_AT_ONCE])


def failure(instance: Instance, container: Container) -> tuple[str, int]:
    """What a failed training container tells the service, and its exit code."""
    file = instance.place("/opt/ml/output/failure")
    text = file.read_text(errors="replace") if file.is_file() else ""
    code = container.code or 0
    if container.command.by_toolkit:
        if not text:
            command = " ".join(container.command.argv)
            text = (
                f'ExecuteUserScriptError:\nExitCode {code}\nErrorMessage "{container.last_line}"\nCommand "{command}"'
            )
        return text[:1024], 1
    return text[:1024], code if code >= 0 else 128 - code

"""The folder that a local Airflow lives in: who runs it now, where, and its password."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from include.errors import UserError

PROJECT = Path(__file__).resolve().parent.parent
USER = "admin"
NEEDED_GB = 1.0
"""Room for the metadata database, task logs and what SQLite writes beside them."""


class AirflowError(RuntimeError):
    """A local Airflow cannot be started, reached or ended; one line, then what its log says if that helps."""


def airflow_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The home of the project's Airflow: FMOPS_AIRFLOW_HOME, or .airflow in the project."""
    return (PROJECT / Path(environ.get("FMOPS_AIRFLOW_HOME") or ".airflow").expanduser()).absolute()


def airflow_port(environ: Mapping[str, str] = os.environ) -> int:
    """The port of the UI and API: FMOPS_PORT, or 8080. 0 takes any free one."""
    return chosen_port("FMOPS_PORT", 8080, environ)


def chosen_port(variable: str, default: int, environ: Mapping[str, str]) -> int:
    """The port that a variable names, or the default; UserError if it is none."""
    text = environ.get(variable) or str(default)
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise UserError(f"{variable}={text} is not a port: write a number from 0 (any free port) to 65535")
    return int(text)


def usable_port(port: int, variable: str = "FMOPS_PORT") -> int:
    """The port itself if it is free on loopback, a free one for 0; UserError if it is taken: `variable` moves it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port} cannot be used ({error.strerror}): end what listens there, or set {variable}"
            ) from None
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Running:
    """An Airflow that runs now, as its launcher wrote it down."""

    url: str
    mark: str
    """What all its processes carry in their environment."""

    launcher: int
    """Process id of the launcher that holds it."""

    started_at: str
    """ISO time, in UTC; what was parsed before it may be out of date."""

    healthy: bool
    """False while it starts."""


class Home:
    """One Airflow home; at most one launcher at a time holds it, by a lock that ends with the launcher."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: TextIO | None = None
        self._running = path / "running.json"
        self._passwords = path / "passwords.json"

    def prepare(self, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> None:
        """Make the folder, for this user alone; UserError if it cannot be written or its disk is nearly full."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            free_gb = free_bytes(self.path) / 1e9
            if free_gb < NEEDED_GB:
                raise UserError(
                    f"{self.path} has {free_gb:.1f} GB free, Airflow needs {NEEDED_GB:.0f} GB: free some, or set "
                    "FMOPS_AIRFLOW_HOME to a folder on another disk"
                )
            with (self.path / "launcher.lock").open("a"):
                pass
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be used ({error.strerror}): set FMOPS_AIRFLOW_HOME to another folder"
            ) from None

    def is_made(self) -> bool:
        """Whether a launcher made this folder its home."""
        return (self.path / "launcher.lock").exists()

    def hold(self) -> bool:
        """Become the one launcher of this home; False if another is."""
        file = (self.path / "launcher.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._lock = file
        return True

    def release(self) -> None:
        """Let another launcher have this home."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_held(self) -> bool:
        """Whether a launcher, here or in another process, holds this home."""
        if self._lock is not None:
            return True
        if not self.is_made():
            return False
        with (self.path / "launcher.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def write_running(self, running: Running) -> None:
        """Say what runs here now; readers see the old record or the new, never a part."""
        temporary = self._running.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(running), indent=1))
        temporary.replace(self._running)

    def read_running(self) -> Running | None:
        """What runs here, or ran when its launcher was killed; None after an orderly end."""
        try:
            return Running(**json.loads(self._running.read_text()))
        except FileNotFoundError:
            return None

    def forget_running(self) -> None:
        """Say that nothing runs here any more."""
        self._running.unlink(missing_ok=True)

    def password(self) -> str:
        """The password of USER, made on first use and kept for this user's eyes only."""
        if not self._passwords.exists():
            temporary = self._passwords.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps({USER: secrets.token_urlsafe(12)}))
            temporary.replace(self._passwords)
        return str(json.loads(self._passwords.read_text())[USER])

    @property
    def password_file(self) -> Path:
        """Where Airflow's simple auth manager finds the password."""
        return self._passwords

"""Index settings, the stamp, and what interrupts a setup; the installers are fakes, the steps and files are real."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from local.pythons import SetupError
from local.setup_environment import (
    AIRFLOW,
    ENVIRONMENTS,
    JOBS,
    PROJECT,
    STAMP,
    UV,
    Environment,
    main,
    pip_settings,
    setup,
    uv_environment,
)

PLENTY = 100 * 10**9


def test_uv_takes_pips_variables() -> None:
    environ = {
        "PIP_INDEX_URL": "https://mirror/simple",
        "PIP_EXTRA_INDEX_URL": "https://a/simple\nhttps://b/simple",
        "PIP_FIND_LINKS": "/wheels https://files/",
        "PIP_CERT": "/ca.pem",
        "NO_PROXY": "mirror",
    }
    assert uv_environment(environ, {}) == {
        **environ,
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_FIND_LINKS": "/wheels,https://files/",
        "SSL_CERT_FILE": "/ca.pem",
    }


@pytest.mark.parametrize("own", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_uvs_own_variables_win(own: str) -> None:
    environ = {own: "https://uv/simple", "PIP_INDEX_URL": "https://pip/simple"}
    assert uv_environment(environ, {"index-url": "https://file/simple"}) == environ


def test_pips_variables_win_over_its_files() -> None:
    result = uv_environment({"PIP_INDEX_URL": "https://pip/simple"}, {"index-url": "https://file/simple"})
    assert result["UV_DEFAULT_INDEX"] == "https://pip/simple"


def test_a_proxy_of_pips_files_is_used_unless_the_environment_has_one() -> None:
    assert uv_environment({}, {"proxy": "http://p:3128"})["ALL_PROXY"] == "http://p:3128"
    assert "ALL_PROXY" not in uv_environment({"https_proxy": "http://q:3128"}, {"proxy": "http://p:3128"})


def test_pips_files_are_read_section_by_section() -> None:
    listing = (
        ":env:.cert='/env.pem'\n"
        "install.index-url='https://install/simple'\n"
        "global.index-url='https://global/simple'\n"
        "global.find-links='\\n/a\\n/b'\n"
    )
    assert pip_settings(listing) == {"index-url": "https://install/simple", "find-links": "\n/a\n/b"}


class Bench:
    """A project of its own, and a Python whose `-m venv` makes an environment with a fake pip and a fake uv.

    Every call of either is a line in `calls`; while the file `broken` exists, uv fails.
    """

    def __init__(self, root: Path) -> None:
        self.project, self.venv = root / "project", root / "project" / ".venv"
        self.jobs = self.project / ".venv-jobs"
        self.calls_file, self.broken = root / "calls", root / "broken"
        self.project.mkdir()
        for name in {*AIRFLOW.files, *JOBS.files}:
            shutil.copy(PROJECT / name, self.project / name)
        self.environ = {"PATH": f"{root}/bin:/usr/bin:/bin", "HOME": str(root)}
        self.make_python(root / "bin" / "python3.12", "3.12.4")

    def make_python(self, path: Path, version: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"""#!/bin/sh
case "$1 $2" in
"-c "*) echo {version} ;;
"-m venv")
  mkdir -p "$3/bin"
  printf 'home = x\\nversion = {version}\\n' > "$3/pyvenv.cfg"
  printf '#!/bin/sh\\necho "pip $*" >> {self.calls_file}\\n' > "$3/bin/python"
  printf '#!/bin/sh\\necho "uv $*" >> {self.calls_file}\\necho Resolved 3 packages\\ntest ! -e {self.broken}\\n' \\
    > "$3/bin/uv"
  chmod +x "$3/bin/python" "$3/bin/uv" ;;
esac
"""
        )
        path.chmod(0o755)

    def setup(self, kind: Environment = AIRFLOW, free_bytes: int = PLENTY, **environ: str) -> list[str]:
        """Run the setup; the calls it made."""
        self.calls_file.write_text("")
        setup(kind, self.project, {**self.environ, **environ}, lambda _folder: free_bytes)
        return self.calls_file.read_text().splitlines()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_setup_installs_the_lock_and_says_what_it_does(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    calls = bench.setup()
    assert calls[0].endswith(f"install --quiet {UV}")
    assert calls[2].endswith("-r requirements-local.txt --group dev -c constraints.txt")
    assert calls[3].endswith("-r requirements-local-nodeps.txt --no-deps")
    said = capsys.readouterr().out
    assert "Python 3.12.4" in said and "570 MB, no torch" in said and "Resolved 3 packages" in said


def test_a_second_setup_does_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.setup()
    capsys.readouterr()
    assert bench.setup() == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ENVIRONMENTS.values() for name in kind.files])
def test_a_changed_requirement_is_installed_into_the_same_environment(
    bench: Bench, kind: Environment, name: str
) -> None:
    made = len(bench.setup(kind))
    (kept := kind.path(bench.project, {}) / "kept").touch()
    with (bench.project / name).open("a") as file:
        file.write("\n# changed\n")
    assert len(bench.setup(kind)) == made
    assert kept.exists()


def test_the_environment_of_jobs_is_one_of_its_own(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.setup()
    (bench.venv / "kept").touch()
    calls = bench.setup(JOBS)
    assert calls[0].endswith(f"install --quiet {UV}")
    assert calls[2].endswith("-r requirements-jobs.txt -c constraints-jobs.txt")
    assert len(calls) == 3
    assert str(bench.jobs) in (said := capsys.readouterr().out)
    assert "downloads about 3270 MB, most of it torch's CUDA build\n" in said
    assert bench.setup(JOBS) == bench.setup() == []
    assert (bench.venv / "kept").exists()


def test_the_environment_of_jobs_can_be_moved(bench: Bench) -> None:
    assert len(bench.setup(JOBS, FMOPS_JOBS_VENV="elsewhere/jobs")) == 3
    assert (bench.project / "elsewhere" / "jobs" / STAMP).read_text() != ""
    assert not bench.jobs.exists()
    bench.jobs.mkdir()
    (bench.jobs / "thesis.txt").touch()
    with pytest.raises(SetupError, match=rf"{bench.jobs} was not made by `make setup-jobs`.*FMOPS_JOBS_VENV"):
        bench.setup(JOBS)
    with pytest.raises(SetupError, match=r"has 0\.7 GB free, the environment needs 14 GB.*FMOPS_JOBS_VENV"):
        bench.setup(JOBS, free_bytes=7 * 10**8, FMOPS_JOBS_VENV="another")


def test_torchs_build_for_cpus_needs_less(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    little = 5 * 10**9
    for backend in ("", "cu130"):
        with pytest.raises(SetupError, match="needs 14 GB"):
            bench.setup(JOBS, free_bytes=little, UV_TORCH_BACKEND=backend)
    assert len(bench.setup(JOBS, free_bytes=little, UV_TORCH_BACKEND="cpu")) == 3
    assert "downloads about 280 MB, and torch's CPU build\n" in capsys.readouterr().out
    assert AIRFLOW.size_by({"UV_TORCH_BACKEND": "cpu"}) == AIRFLOW.size


def test_a_failed_setup_names_step_and_log_and_is_made_anew(bench: Bench) -> None:
    bench.broken.touch()
    with pytest.raises(
        SetupError, match=rf"step 'install the requirements' failed.*{bench.venv}/setup.log.*PIP_INDEX_URL"
    ):
        bench.setup()
    assert "Resolved 3 packages" in (bench.venv / "setup.log").read_text()
    (bench.venv / "half-made").touch()
    bench.broken.unlink()
    assert len(bench.setup()) == 4
    assert not (bench.venv / "half-made").exists()
    assert bench.setup() == []


def test_another_python_makes_the_environment_anew(bench: Bench) -> None:
    bench.setup()
    bench.make_python(bench.project / "python", "3.13.1")
    (bench.venv / "old").touch()
    assert len(bench.setup(PYTHON=str(bench.project / "python"))) == 4
    assert not (bench.venv / "old").exists()
    assert bench.setup() == []  # nobody asks for another one now


def test_an_environment_whose_python_is_gone_is_made_anew(bench: Bench) -> None:
    bench.setup()
    (bench.venv / "bin" / "python").unlink()
    assert len(bench.setup()) == 4


def test_a_folder_of_somebody_else_is_left_alone(bench: Bench) -> None:
    bench.venv.mkdir()
    (bench.venv / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match=rf"{bench.venv} was not made by `make setup`.*FMOPS_VENV"):
        bench.setup()
    assert (bench.venv / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_named_before_any_work(bench: Bench) -> None:
    with pytest.raises(SetupError, match=rf"{bench.venv} has 0.7 GB free, the environment needs 3 GB.*FMOPS_VENV"):
        bench.setup(free_bytes=7 * 10**8)
    assert bench.calls_file.read_text() == ""
    assert len(bench.setup()) == 4


def test_errors_are_one_line_and_status_1(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (bench.project / "mine").write_text("a file, not a folder")
    monkeypatch.setattr("sys.argv", ["setup_environment", "airflow"])
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("FMOPS_VENV", str(bench.project / "mine"))
    assert main() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "FMOPS_VENV" in error
    assert (bench.venv / STAMP).exists() is False

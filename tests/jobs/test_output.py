"""What a job leaves: whole, of all its hosts, or not; and an error of storage is never taken for absence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from include.jobs.harness import Job
from include.jobs.output import read_manifest
from include.jobs.spec import channel_state
from include.jobs.states import OutputError
from include.storage import location, size_of


def leave(folder: Path, host: int, num_hosts: int, files: dict[str, str]) -> None:
    """What the harness leaves on one host; the service copies the folders of all into one."""
    hosts = [f"algo-{number + 1}" for number in range(num_hosts)]
    own = folder / f"host-{host}"
    job = Job({
        "FMOPS_ML_ROOT": str(own), "SM_MODEL_DIR": str(own / "out"), "SM_HOSTS": json.dumps(hosts),
        "SM_CURRENT_HOST": hosts[host],
    })  # fmt: skip
    for name, text in files.items():
        (job.model_dir / name).write_text(text)
    job.finish({"host": host})
    (folder / "out").mkdir(exist_ok=True)
    for file in job.model_dir.iterdir():
        file.replace(folder / "out" / file.name)


def test_the_files_of_all_hosts_are_its_output(tmp_path: Path) -> None:
    for host in range(3):
        leave(tmp_path, host, 3, {f"part-{host}": "x" * (host + 1)})
    manifest = read_manifest((tmp_path / "out").as_uri())
    assert {file.path: file.bytes for file in manifest.files} == {"part-0": 1, "part-1": 2, "part-2": 3}
    assert (manifest.hosts, manifest.metrics) == (3, {"host": 0})


@pytest.mark.parametrize("missing", ["manifest.json", "manifest-1.json", "part-0", "part-1"])
def test_what_one_host_did_not_leave_makes_it_not_whole(tmp_path: Path, missing: str) -> None:
    for host in range(2):
        leave(tmp_path, host, 2, {f"part-{host}": "x"})
    (tmp_path / "out" / missing).unlink()
    with pytest.raises(OutputError, match=missing):
        read_manifest((tmp_path / "out").as_uri())


def test_files_of_one_name_replaced_each_other(tmp_path: Path) -> None:
    for host in range(2):
        leave(tmp_path, host, 2, {"model": "x"})
    with pytest.raises(OutputError, match="several hosts wrote model"):
        read_manifest((tmp_path / "out").as_uri())


class Refusing(BaseHTTPRequestHandler):
    """An S3 that answers nothing else."""

    status = 503

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(params=[403, 503])
def refusing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Refusing, "status", request.param)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "look",
    [
        lambda: size_of(location("s3://bucket/file")),
        lambda: read_manifest("s3://bucket/out"),
        lambda: list(channel_state("train", "s3://bucket/train")),
    ],
    ids=["size_of", "read_manifest", "channel_state"],
)
def test_a_storage_that_refuses_is_an_error_not_an_absence(refusing: None, look: Any) -> None:
    with pytest.raises(OSError):
        look()


def test_absence_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("four")
    assert size_of(location((tmp_path / "file").as_uri())) == 4
    assert size_of(location((tmp_path / "nothing").as_uri())) is None
    assert size_of(location((tmp_path / "file" / "below").as_uri())) is None

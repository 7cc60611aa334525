from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.opensearch import launcher


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine without any tool."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("JAVA_HOME", "OPENSEARCH_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launcher, "_JVMS", tmp_path)
    launcher._tool.cache_clear()
    yield tmp_path
    launcher._tool.cache_clear()


def test_without_maven_or_java_one_line_says_what_to_install(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_server", launcher._server.__wrapped__)  # this session's own is started already
    with pytest.raises(pytest.fail.Exception, match="needs Maven .*or OPENSEARCH_URL"):
        launcher.server()
    with pytest.raises(RuntimeError, match="needs a JDK of 21 or later .*JAVA_HOME.*or OPENSEARCH_URL"):
        launcher._tool("java")
    assert "\n" not in str(launcher._server())


def test_an_old_java_is_passed_over(bare: Path) -> None:
    for version, home in (("17.0.9", "a-17"), ("25.0.1", "b-25")):
        folder = bare / home / "bin"
        folder.mkdir(parents=True)
        (folder / "javac").write_text(f"#!/bin/sh\necho javac {version}\n")
        (folder / "javac").chmod(0o755)
    assert launcher._tool("java") == bare / "b-25" / "bin" / "java"


def test_a_server_that_is_named_is_used_as_it_is(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSEARCH_URL", "http://localhost:9200/")
    monkeypatch.setattr(launcher, "_server", launcher._server.__wrapped__)
    named = launcher.server()
    assert named.url == "http://localhost:9200"
    with pytest.raises(NotImplementedError, match="is not ours"):
        named.restart()

"""What is printed after an ingestion says whether readers have its version, and what to do next."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from include.rag.versions import Spec, Versions
from include.storage import write_record
from local.results import print_results
from tests.rag.report_records import manifest, report

SPEC = Spec(store="lancedb", embedder="hashing", embedder_version="hashing-1", chunker="c")


def printed(versions: Versions, number: int, capsys: pytest.CaptureFixture[str]) -> str:
    folder = versions.home / "runs" / "run-1"
    write_record(folder / "manifest.json", manifest(number))
    write_record(folder / "retrieval.json", report(30, 0))
    print_results(str(folder / "manifest.json"))
    return capsys.readouterr().out


def begun(root: str, number: int, waiting: Collection[int] = ()) -> Versions:
    """An index of so many versions, all of which went live but those that wait."""
    versions = Versions(root, "t", "docs")
    for one in range(1, number + 1):
        versions.choose(SPEC, f"run-{one}", rebuild=True)
        if one not in waiting:
            versions.go_live(one, by=f"run-{one}")
    return versions


def test_a_version_that_is_live_can_be_asked_and_there_is_nothing_to_go_back_to(
    root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(begun(root, 1), 1, capsys)
    assert "version     v0001, live\n" in said
    assert 'make ask Q="' in said and "make rollback" not in said


def test_the_version_before_is_named_while_it_is_there(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    versions = begun(root, 3)
    assert "make rollback   goes back to v0002\n" in printed(versions, 3, capsys)
    versions.remove(versions.get(2))
    assert "make rollback   goes back to v0001\n" in printed(versions, 3, capsys)
    versions.remove(versions.get(1))
    assert "make rollback" not in printed(versions, 3, capsys)


@pytest.mark.parametrize(("number", "live"), [(2, "v0001"), (1, "no version")])
def test_a_version_that_waits_says_where_to_look(
    root: str, capsys: pytest.CaptureFixture[str], number: int, live: str
) -> None:
    said = printed(begun(root, number, waiting=[number]), number, capsys)
    assert f"version     v000{number}, waiting; {live} is live\n" in said
    assert f"make versions   the log of the task live.switch says what v000{number} waits for\n" in said
    assert "make ask" not in said

"""The registry of releases: versions that nobody shares, one champion whatever happens at once, and what is refused."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pydantic import ValidationError

from include.contracts import Cost, Lineage, ModelRelease, ReleaseFile
from include.errors import BusyError, DriftError, UserError
from include.models import conditional, registry
from include.models.conditional import ABSENT, look, write_if_unchanged
from include.models.registry import Aliases, Promotion, by_metric, claim, promote, publish
from include.storage import digest, location, read_json, write_bytes, write_json

LOSS = "held_out.bits_per_byte"
BETTER = by_metric(LOSS, lower_is_better=True)
WEIGHTS = b"weights"
PROCESSES = 4


def a_release(root: str, version: int, loss: float = 2.0, *, model: str = "base", **other: Any) -> ModelRelease:
    """The record of a version, whose one file is there."""
    home = registry.release_home(root, "acme", model, version)
    write_bytes(home / "model" / "model.safetensors", WEIGHTS)
    file = ReleaseFile(path="model/model.safetensors", bytes=len(WEIGHTS), sha256=hashlib.sha256(WEIGHTS).hexdigest())
    lineage = {name: name for name in Lineage.model_fields if name != "jobs"}
    values: dict[str, Any] = {
        "tenant": "acme",
        "use_case": "docs",
        "model": model,
        "version": version,
        "content_digest": f"content-{version}",
        "model_uri": str(home / "model"),
        "card_uri": str(home / "card.md"),
        "architecture": "decoder",
        "size": "tiny",
        "parameters": 10,
        "lineage": Lineage(**lineage, jobs=("train-1-g1",)),
        "config": {"steps": 600},
        "metrics": {LOSS: loss},
        "files": (file,),
        "licences": ("Apache-2.0",),
        "cost": Cost(instance_seconds=12.0),
    }
    return ModelRelease(**{**values, **other})


def released(root: str, version: int, loss: float = 2.0, **other: Any) -> ModelRelease:
    return publish(root, a_release(root, version, loss, **other))


def promoted(root: str, version: int, better: registry.Better = BETTER) -> Promotion:
    return promote(root, "acme", "base", version, better=better, by="run")


def aliases(root: str) -> Aliases:
    return registry.read_aliases(root, "acme", "base")


# Conditional writes


def test_a_file_is_written_only_over_what_was_seen(any_root: str) -> None:
    path = location(any_root) / "folder" / "file.json"
    assert look(path) == ABSENT
    assert write_if_unchanged(path, b"one", ABSENT)
    assert not write_if_unchanged(path, b"other", ABSENT)
    seen = look(path)
    assert seen.data == b"one"
    assert write_if_unchanged(path, b"two", seen)
    assert not write_if_unchanged(path, b"three", seen)
    assert path.read_bytes() == b"two"


def test_what_was_deleted_meanwhile_is_not_written(any_root: str) -> None:
    path = location(any_root) / "file.json"
    write_bytes(path, b"one")
    seen = look(path)
    path.unlink()
    assert not write_if_unchanged(path, b"two", seen)
    assert look(path) == ABSENT


def test_a_store_without_conditional_put_is_refused(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        def put_object(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": "NotImplemented"}}, "PutObject")

    monkeypatch.setattr(conditional, "client", lambda _service: Plain())
    with pytest.raises(UserError, match="this store has no conditional put"):
        write_if_unchanged(location(s3_root) / "file", b"", ABSENT)


# Versions


def test_the_same_content_is_the_same_version(any_root: str) -> None:
    first = claim(any_root, "acme", "base", "a", "run-1")
    second = claim(any_root, "acme", "base", "b", "run-2")
    assert (first.version, second.version) == (1, 2)
    assert claim(any_root, "acme", "base", "a", "run-3") == first
    assert claim(any_root, "acme", "other", "a", "run-3").version == 1, "each model counts for itself"


def test_content_is_data_config_code_and_base_model() -> None:
    same = {"data": "d", "config": "c", "code": "o"}
    found = {registry.content_digest(**{**same, **change}) for change in ({}, *({name: "x"} for name in same))}
    found |= {registry.content_digest(**same, base_model=base) for base in ("base/1", "base/2")}
    assert len(found) == 6


def claim_many(root: str, worker: int) -> list[tuple[str, int]]:
    """What one of several processes does: its own contents, and some that all have in common."""
    contents = [f"shared-{number}" for number in range(5)] + [f"own-{worker}-{number}" for number in range(5)]
    return [(content, claim(root, "acme", "base", content, f"run-{worker}").version) for content in contents]


def at_once(work: Callable[[str, int], Any], root: str) -> list[Any]:
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(work, [root] * PROCESSES, range(PROCESSES)))


def test_processes_that_claim_at_once_share_no_version(tmp_path: Path) -> None:
    found = {pair for pairs in at_once(claim_many, tmp_path.as_uri()) for pair in pairs}
    contents = 5 + 5 * PROCESSES
    assert len(found) == contents, "a content has one version, whoever asks"
    assert sorted(version for _, version in found) == list(range(1, contents + 1))


def test_who_comes_second_on_s3_takes_the_next_number(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with another_first(monkeypatch, lambda: claim(s3_root, "acme", "base", "theirs", "run-2")):
        assert claim(s3_root, "acme", "base", "mine", "run-1").version == 2
    assert claim(s3_root, "acme", "base", "theirs", "run-2").version == 1


@contextmanager
def another_first(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Iterator[None]:
    """Another process acts between the next look and the write that follows it."""
    write = write_if_unchanged

    def late(*arguments: Any) -> bool:
        monkeypatch.setattr(registry, "write_if_unchanged", write)
        act()
        return write(*arguments)

    monkeypatch.setattr(registry, "write_if_unchanged", late)
    yield
    assert registry.write_if_unchanged is write, "nothing was written"


def test_a_claim_that_is_never_had_ends(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "write_if_unchanged", lambda *_: False)
    with pytest.raises(BusyError, match="others came first 100 times"):
        claim(root, "acme", "base", "a", "run")


def test_a_version_is_there_with_its_manifest(any_root: str) -> None:
    assert registry.list_versions(any_root, "acme", "base") == []
    assert registry.latest(any_root, "acme", "base") is None
    first = released(any_root, 1)
    a_release(any_root, 2)  # killed before its manifest
    third = released(any_root, 3)
    assert registry.list_versions(any_root, "acme", "base") == [first, third]
    assert registry.latest(any_root, "acme", "base") == third
    assert registry.find_version(any_root, "acme", "base", 2) is None
    with pytest.raises(UserError, match="has no version 2; there is: 1, 3"):
        registry.get_version(any_root, "acme", "base", 2)
    assert (first.reference, first.uri) == ("base/1", str(registry.release_home(any_root, "acme", "base", 1)))


def test_ten_versions_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    for version in (10, 9, 2, 1):
        released(tmp_path.as_uri(), version)
    assert [one.version for one in registry.list_versions(tmp_path.as_uri(), "acme", "base")] == [1, 2, 9, 10]


def test_a_version_is_published_once(any_root: str) -> None:
    first = released(any_root, 1, loss=2.0)
    assert released(any_root, 1, loss=1.0) == first
    assert registry.get_version(any_root, "acme", "base", 1).metrics == {LOSS: 2.0}


def test_models_and_tenants_are_kept_apart(root: str) -> None:
    released(root, 1)
    released(root, 1, model="base-t5")
    a_release(root, 1, model="unfinished")
    assert registry.list_models(root, "acme") == ["base", "base-t5"]
    assert registry.list_models(root, "other") == []


@pytest.mark.parametrize("name", ["../other", "a/b", "", "A", "a" * 64])
def test_what_is_no_name_leads_nowhere(name: str) -> None:
    with pytest.raises(UserError, match="is not a name"):
        registry.model_home("memory://x", "acme", name)
    with pytest.raises(UserError, match="is not a name"):
        registry.model_home("memory://x", name, "base")


def test_an_unknown_schema_is_refused_with_its_place(root: str) -> None:
    released(root, 1)
    file = registry.release_home(root, "acme", "base", 1) / "manifest.json"
    write_json(file, {**read_json(file), "schema_version": 2})
    with pytest.raises(UserError, match="manifest.json is not a ModelRelease of a known version"):
        registry.list_versions(root, "acme", "base")
    home = registry.model_home(root, "acme", "base")
    write_json(home / "aliases.json", {"schema_version": 2})
    with pytest.raises(UserError, match="aliases.json is no Aliases of a known version: schema_version"):
        aliases(root)
    write_json(home / "claims" / "000001.json", {"schema_version": 1})
    with pytest.raises(UserError, match="000001.json is no Claim of a known version: version: Field required"):
        claim(root, "acme", "base", "a", "run")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../b", ".hidden", "a//b", "a b", "a\nb", ""])
def test_a_file_of_a_release_lies_within_it(path: str) -> None:
    with pytest.raises(ValidationError, match="path"):
        ReleaseFile(path=path, bytes=0, sha256="0" * 64)


@pytest.mark.parametrize(
    "wrong",
    [{"metrics": {"a": float("nan")}}, {"metrics": {"a": float("inf")}}, {"base_model": "base"}, {"version": 0}],
    ids=str,
)
def test_a_record_holds_only_what_it_may(tmp_path: Path, wrong: dict[str, Any]) -> None:
    values = a_release(tmp_path.as_uri(), 1).model_dump()
    assert ModelRelease(**values).model_dump() == values
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ModelRelease(**{**values, **wrong})


def test_a_release_is_verified_file_by_file(any_root: str) -> None:
    release = released(any_root, 1)
    registry.verify(release, with_digests=True)
    file = location(release.uri) / "model" / "model.safetensors"
    write_bytes(file, WEIGHTS.upper())
    registry.verify(release)
    with pytest.raises(DriftError, match="model.safetensors is not what was released"):
        registry.verify(release, with_digests=True)
    write_bytes(file, WEIGHTS[1:])
    with pytest.raises(DriftError, match="model.safetensors has 6 bytes, not 7"):
        registry.verify(release)
    file.unlink()
    with pytest.raises(DriftError, match="model.safetensors has no bytes, not 7"):
        registry.verify(release)


# Champion and challenger


def test_the_first_is_champion_whatever_its_metric(root: str) -> None:
    released(root, 1, loss=9.0)
    assert promoted(root, 1) == Promotion(version=1, alias="champion", champion=1, reason="version 1 is the first")
    assert (found := aliases(root)).champion == 1 and found.challenger is None and found.by == "run"
    champion = registry.champion(root, "acme", "base")
    assert champion is not None and champion.version == 1


def test_a_better_one_becomes_champion(root: str) -> None:
    for version, loss in ((1, 2.0), (2, 1.5)):
        released(root, version, loss)
        promotion = promoted(root, version)
    assert promotion.alias == "champion"
    assert promotion.reason == f"{LOSS} 1.5000 of version 2, 2.0000 of version 1: better"
    found = aliases(root)
    assert (found.champion, found.challenger, found.former) == (2, None, (1,))


@pytest.mark.parametrize("loss", [2.0, 2.5])
def test_an_equal_or_worse_one_becomes_challenger(root: str, loss: float) -> None:
    released(root, 1, 2.0)
    promoted(root, 1)
    released(root, 2, loss)
    assert promoted(root, 2).alias == "challenger"
    found = aliases(root)
    assert (found.champion, found.challenger, found.former) == (1, 2, ())
    assert found.reason.endswith("not better")


def test_the_direction_is_the_callers(root: str) -> None:
    higher = by_metric("accuracy", lower_is_better=False)
    for version, accuracy in ((1, 0.5), (2, 0.7), (3, 0.6)):
        released(root, version, metrics={"accuracy": accuracy})
        promoted(root, version, higher)
    assert (aliases(root).champion, aliases(root).challenger) == (2, 3)


def test_what_cannot_be_compared_is_challenger(root: str) -> None:
    released(root, 1)
    promoted(root, 1)
    released(root, 2, metrics={"other": 1.0})
    promotion = promoted(root, 2)
    assert promotion.alias == "challenger"
    assert promotion.reason == f"version 2 has no metric {LOSS}: the two cannot be compared"


def test_a_person_may_decide(root: str) -> None:
    for version, loss in ((1, 1.0), (2, 2.0)):
        released(root, version, loss)
        promoted(root, version)
    assert promoted(root, 2, lambda new, old: (True, "by hand")).alias == "champion"
    assert (aliases(root).champion, aliases(root).challenger, aliases(root).reason) == (2, None, "by hand")


def test_a_repeated_promotion_changes_nothing(root: str) -> None:
    for version, loss in ((1, 2.0), (2, 1.0), (3, 1.5)):
        released(root, version, loss)
        promoted(root, version)
    before = aliases(root)
    assert [promoted(root, version).alias for version in (1, 2, 3)] == ["former", "champion", "challenger"]
    after = aliases(root)
    assert after.model_copy(update={"at": None}) == before.model_copy(update={"at": None})


def test_a_version_that_is_not_there_is_not_promoted(root: str) -> None:
    a_release(root, 1)
    with pytest.raises(UserError, match="has no version 1; there is: none"):
        promoted(root, 1)
    assert aliases(root) == Aliases()


def promote_own(root: str, worker: int) -> None:
    """What one of several processes does: releases that get better and better, and are promoted at once."""
    for number in range(4):
        content = digest(str(worker), str(number))
        version = claim(root, "acme", "base", content, f"run-{worker}").version
        released(root, version, 10.0 - number - worker / 10)
        promoted(root, version)


def test_of_processes_that_promote_at_once_none_is_lost(root: str) -> None:
    at_once(promote_own, root)
    versions = registry.list_versions(root, "acme", "base")
    assert [one.version for one in versions] == list(range(1, 4 * PROCESSES + 1))
    found = aliases(root)
    best = min(versions, key=lambda one: one.metrics[LOSS])
    assert found.champion == best.version, "the best of all is champion, in whatever order they came"
    losses = [registry.get_version(root, "acme", "base", version).metrics[LOSS] for version in found.former]
    assert losses == sorted(losses, reverse=True) and max(Counter(found.former).values(), default=1) == 1


def test_a_champion_that_came_meanwhile_is_compared_with(any_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, loss in ((1, 3.0), (2, 2.0), (3, 1.0)):
        released(any_root, version, loss)
    promoted(any_root, 1)
    with another_first(monkeypatch, lambda: promoted(any_root, 3)):
        promotion = promoted(any_root, 2)
    assert promotion == Promotion(
        version=2,
        alias="challenger",
        champion=3,
        reason=f"{LOSS} 2.0000 of version 2, 1.0000 of version 3: not better",
    )
    assert (aliases(any_root).champion, aliases(any_root).former) == (3, (1,))


def test_two_first_ones_at_once_make_one_champion(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    released(root, 1, 2.0)
    released(root, 2, 1.0)
    with another_first(monkeypatch, lambda: promoted(root, 2)):
        assert promoted(root, 1).alias == "challenger"
    assert (aliases(root).champion, aliases(root).challenger) == (2, 1)


# References


def test_a_release_is_found_by_its_reference(root: str) -> None:
    for version, loss in ((1, 2.0), (2, 1.0), (3, 1.5)):
        released(root, version, loss)
        promoted(root, version)
    found = {text: registry.find(root, "acme", text).version for text in
             ("base", "base@champion", "base@challenger", "base/1")}  # fmt: skip
    assert found == {"base": 2, "base@champion": 2, "base@challenger": 3, "base/1": 1}


@pytest.mark.parametrize("text", ["base@latest", "base/0", "base/x", "../base", "Base", ""])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write NAME, NAME@champion, NAME@challenger or NAME/VERSION"):
        registry.find("memory://nothing", "acme", text)


def test_a_missing_one_is_told_with_those_that_are_there(root: str) -> None:
    released(root, 1)
    with pytest.raises(UserError, match="model 'base' of tenant 'acme' has no champion; models with a version: base"):
        registry.find(root, "acme", "base")
    with pytest.raises(UserError, match="model 'base' of tenant 'acme' has no version 4; there is: 1"):
        registry.find(root, "acme", "base/4")

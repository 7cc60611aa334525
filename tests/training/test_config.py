"""What a run's Params become: defaults by preset and settings, and one line for each that cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.config import Settings
from include.errors import UserError
from include.training.config import PARAMS, SEGMENTS, PretrainConfig, resolve
from include.training.presets import PRESETS
from tests.training.planning import here, on_aws

SOURCE = {"name": "handbook", "uri": "s3://bucket/handbook", "licence": "CC-BY-4.0"}


@pytest.mark.parametrize("size", PRESETS)
def test_what_is_not_given_is_the_presets(size: str) -> None:
    config, preset = on_aws(size=size), PRESETS[size]
    for name in ("vocab_size", "steps", "batch_tokens", "micro_batch_tokens", "learning_rate", "instance_type"):
        assert getattr(config, name) == getattr(preset, name), name


def test_an_encoder_decoder_learns_at_a_rate_of_its_own() -> None:
    assert on_aws(architecture="encoder_decoder").learning_rate == 1e-3
    assert on_aws(architecture="encoder_decoder", size="small").learning_rate == PRESETS["small"].learning_rate
    assert on_aws(architecture="encoder_decoder", learning_rate=2e-3).learning_rate == 2e-3


def test_none_is_as_if_it_was_not_given() -> None:
    empty = dict.fromkeys(PARAMS)
    assert here(**empty) == here()


def test_what_is_given_goes_before_the_preset() -> None:
    config = on_aws(size="mini", steps=100, vocab_size=4096, instance_type="ml.g5.xlarge", checkpoint_every_s=5)
    assert (config.steps, config.vocab_size, config.instance_type) == (100, 4096, "ml.g5.xlarge")
    assert config.checkpoint_every_s == 5


def test_a_batch_that_is_smaller_than_the_presets_part_is_one_part() -> None:
    assert here(size="mini", batch_tokens=1024).micro_batch_tokens == 1024
    assert here(size="mini", batch_tokens=8192).micro_batch_tokens == 4096


def test_the_settings_say_whose_it_is_and_where_it_runs() -> None:
    deployment = Settings(target="aws", storage_root="s3://bucket/x", tenant="acme", use_case="search")
    config = resolve({}, "run", deployment)
    assert (config.tenant, config.use_case, config.backend, config.region) == (
        "acme",
        "search",
        "sagemaker",
        "us-east-1",
    )
    assert resolve({"tenant": "other"}, "run", deployment).tenant == "other"
    assert (here().backend, here().region, here().is_local) == ("local", None, True)


def test_aws_needs_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(UserError, match="no AWS region is set: set AWS_DEFAULT_REGION"):
        on_aws()


def test_tasks_hand_it_on_as_json() -> None:
    config = on_aws(sources=[SOURCE], evaluation_sets=["s3://bucket/quiz.jsonl"], languages=["de", "en"], seed=7)
    assert PretrainConfig(**json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_what_curation_takes_are_params_too() -> None:
    short = Settings(storage_root="memory://x", document_seconds=7, document_memory_mb=256)
    curation = resolve({"min_characters": 50, "seed": 3}, "run", short).curation
    assert (curation.min_characters, curation.seed) == (50, 3)
    assert (curation.document_seconds, curation.document_memory_mb) == (7, 256)
    assert not {"document_seconds", "curation", "root", "run_id", "backend", "region"} & PARAMS


def test_an_evaluation_set_may_be_a_local_path() -> None:
    assert here(evaluation_sets=["/data/quiz.jsonl"]).curation.evaluation_sets == ("file:///data/quiz.jsonl",)


def test_sources_are_read() -> None:
    [source] = on_aws(sources=[SOURCE]).open_sources()
    assert (source.name, source.uri, source.licence) == ("handbook", "s3://bucket/handbook", "CC-BY-4.0")


def test_places_are_below_the_tenant_and_the_run() -> None:
    config = here(root="memory://places", tenant="acme")
    other = config.model_copy(update={"run_id": "run/1"})
    assert str(config.corpora_home) == "memory://places/acme/training/corpora"
    assert config.run_home.parent == other.run_home.parent == config.home / "runs"
    assert config.run_home != other.run_home


@settings(deadline=None)
@given(steps=st.integers(SEGMENTS, 10**6))
def test_segments_share_the_steps(steps: int) -> None:
    config = here().model_copy(update={"steps": steps})
    segments = [config.hyperparameters(number) for number in range(1, SEGMENTS + 1)]
    ends = [0, *(segment["until_step"] for segment in segments)]
    assert [segment["from_step"] for segment in segments] == ends[:-1]
    assert ends[-1] == steps
    lengths = [int(end) - int(begin) for begin, end in zip(ends, ends[1:], strict=False)]
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1


def test_there_is_no_fifth_segment() -> None:
    with pytest.raises(ValueError, match="segment 5 is none of 1 to 4"):
        here().steps_until(5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"learning_rte": 1}, r"^'learning_rte' is no Param of this DAG: did you mean 'learning_rate'\?; there are "),
        ({"xyzzy": 1}, r"^'xyzzy' is no Param of this DAG; there are "),
        ({"document_seconds": 1}, r"^'document_seconds' is no Param of this DAG"),
        ({"size": "huge"}, r"^size='huge' is no preset: write one of tiny, mini, small, 1b$"),
        ({"vocab_size": 359}, r"^vocab_size=359 must be from 360 .* to 65536$"),
        ({"vocab_size": 65_537}, r"^vocab_size=65537 must be from 360 .* to 65536$"),
        ({"steps": 3}, r"^steps=3: Input should be greater than or equal to 4$"),
        ({"steps": "many"}, r"^steps='many': Input should be a valid integer"),
        ({"batch_tokens": 1000}, r"^batch_tokens=1000 must be a multiple of 256, the context of size='tiny'$"),
        ({"micro_batch_tokens": 300}, r"^micro_batch_tokens=300 must be a multiple of 256"),
        ({"micro_batch_tokens": 4096}, r"^micro_batch_tokens=4096 is more than batch_tokens=2048$"),
        ({"learning_rate": float("nan")}, r"^learning_rate=nan: "),
        ({"architecture": "rnn"}, r"^architecture='rnn': Input should be 'decoder' or 'encoder_decoder'$"),
        ({"schedule": "linear"}, r"^schedule='linear': Input should be 'cosine' or 'wsd'$"),
        ({"precision": "fp8"}, r"^precision='fp8': Input should be 'auto', 'fp32' or 'bf16'$"),
        ({"parallelism": "single", "processes": 2}, r"^parallelism='single' is one process, not processes=2"),
        ({"instance_count": 0}, r"^instance_count=0: Input should be greater than or equal to 1$"),
        ({"mfu": 1.1}, r"^mfu=1.1: Input should be less than or equal to 1$"),
        ({"usd_per_hour": 0}, r"^usd_per_hour=0: Input should be greater than 0$"),
        ({"budget_usd": float("inf")}, r"^budget_usd=inf: Input should be a finite number$"),
        ({"tenant": "../other"}, r"^tenant='../other': String should match pattern"),
        ({"model_name": "x" * 300}, r"^model_name='x{90,98}: String should match pattern"),
        ({"min_characters": 0}, r"^min_characters=0: Input should be greater than or equal to 1$"),
        ({"languages": ["English"]}, r"^languages: \['English'\] must be codes such as en or de"),
        ({"evaluation_sets": [5]}, r"^evaluation_sets.0=5: Input should be a valid string$"),
        ({"sources": "s3://bucket/x"}, r"^sources='s3://bucket/x' must be a list of objects with name, uri, kind and"),
        ({"sources": ["s3://bucket/x"]}, r"^sources=\"\['s3://bucket/x'\]\" must be a list of objects"),
        ({"sources": [{"name": "x", "uri": "s3://b/x"}]}, r"^sources\[0\]: x: licence is missing"),
    ],
)
def test_what_cannot_be_is_named_with_what_can(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        here(**params)
    assert "\n" not in str(raised.value)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(UserError, match=r"^seed=-1: [^;]*; steps=1: [^;]*$"):
        here(steps=1, seed=-1)


def test_a_backend_is_one_that_is_known() -> None:
    with pytest.raises(UserError, match=r"^job_backend='cluster' is not known; choose among local, sagemaker$"):
        resolve({}, "run", Settings(storage_root="memory://x", job_backend="cluster"))

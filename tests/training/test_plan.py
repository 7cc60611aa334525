"""The plan of a run: its figures by hand, what it refuses, and what it says would do instead."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import UserError
from include.training.config import SEGMENTS, PretrainConfig
from include.training.plan import Plan, as_text, plan
from include.training.presets import ARCHITECTURES, PRESETS, flops_per_token, num_parameters
from tests.training.in_jobs import run_in_jobs
from tests.training.planning import MACHINE, here, on_aws

CORPUS = 40_000_000_000
"""Bytes; ten thousand million tokens."""

REAL_MODELS = """
import json
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from include.training.model import hugging_face_config
from include.training.presets import ARCHITECTURES, PRESETS

found = {}
for size in ("tiny", "mini"):
    for architecture in ARCHITECTURES:
        preset = PRESETS[size]
        values = hugging_face_config(preset, architecture, preset.vocab_size, 0, 1)
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        auto = AutoModelForCausalLM if architecture == "decoder" else AutoModelForSeq2SeqLM
        with torch.device("meta"):
            model = auto.from_config(config)
        model.tie_weights()
        found[f"{size} {architecture}"] = sum(weight.numel() for weight in model.parameters())
print(json.dumps(found))
"""


def planned(config: PretrainConfig, corpus_bytes: int = CORPUS) -> Plan:
    return plan(config, corpus_bytes, compute=MACHINE if config.is_local else None)


def refusal(config: PretrainConfig, corpus_bytes: int = CORPUS) -> str:
    with pytest.raises(UserError) as raised:
        planned(config, corpus_bytes)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_parameters_are_those_of_the_real_models() -> None:
    done = run_in_jobs(REAL_MODELS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        f"{size} {architecture}": num_parameters(PRESETS[size], architecture)
        for size in ("tiny", "mini")
        for architecture in ARCHITECTURES
    }


class TestByHand:
    def test_tiny(self) -> None:
        # Embedding: 2,048 x 192 = 393,216. A layer: 4 x 192^2 = 147,456 of attention, 3 x 192 x 512 = 294,912 of the
        # feed-forward, 2 x 192 of norms: 442,752. Two of them, and the last norm: 393,216 + 885,504 + 192.
        # A token: 6 x 1,278,912 + 12 x 2 x 192 x 256 / 2 = 7,673,472 + 589,824 = 8,263,296 FLOPs.
        # Tokens: 1,000 x 2,048. ml.c7i.2xlarge: 8 x 80 GFLOP/s x 0.5 = 3.2e11 a second.
        made = planned(on_aws(), 49_152_000)
        assert made.work.parameters == 393_216 + 2 * 442_752 + 192 == 1_278_912
        assert made.work.tokens == 2_048_000
        assert made.work.flops == 2_048_000 * 8_263_296
        seconds = 16_923_230_208_000 / 3.2e11  # 52.9, a quarter of it for each segment
        assert made.cost.hours == pytest.approx(seconds / 3600)
        assert made.cost.segment_hours == pytest.approx([seconds / 4 / 3600] * 4)
        # Dollars: 4 segments and the evaluation start in 300 s each, 0.428 USD an hour.
        assert made.cost.usd == pytest.approx((seconds + 5 * 300) / 3600 * 0.428)
        assert f"{made.cost.usd:.3f}" == "0.185"
        # 3 x (13.2 + 300) = 939.7 s
        assert made.cost.max_runtime_s == (940,) * 4
        # 49,152,000 bytes are 12,288,000 tokens: 0.167 of them are seen. 20 tokens a parameter would be optimal.
        assert (made.work.corpus_tokens, made.work.epochs) == (12_288_000, pytest.approx(1 / 6))
        assert made.work.optimal_tokens == 25_578_240
        assert made.work.checkpoint_gib * 2**30 == 12 * 1_278_912
        assert (made.parallelism, made.precision, made.work.volume_gb) == ("ddp", "fp32", 30)

    def test_1b(self) -> None:
        # Embedding: 65,536 x 2,048 = 134,217,728. A layer: attention 2 x 2,048^2 + 2 x 2,048 x 8 x 64 = 10,485,760,
        # feed-forward 3 x 2,048 x 5,504 = 33,816,576, norms 4,096: 44,306,432. 18 of them, and the last norm.
        # A token: 6 x 931,735,552 + 12 x 18 x 2,048 x 2,048 / 2 = 5,590,413,312 + 452,984,832 = 6,043,398,144 FLOPs.
        # Tokens: 10,000 x 2,097,152. ml.p5.48xlarge: 8 x 989e12 x 0.4 = 3.1648e15 a second.
        made = planned(on_aws(size="1b"))
        assert made.work.parameters == 134_217_728 + 18 * 44_306_432 + 2_048 == 931_735_552
        assert made.work.tokens == 20_971_520_000
        assert made.work.flops == 20_971_520_000 * 6_043_398_144
        seconds = 1.267392464e20 / 3.1648e15
        assert made.cost.hours == pytest.approx(seconds / 3600) == pytest.approx(11.124, abs=1e-3)
        assert made.cost.usd == pytest.approx((seconds + 5 * 300) / 3600 * 63.296) == pytest.approx(730.48, abs=0.01)
        assert made.cost.max_runtime_s == (30_935,) * 4  # 3 x (10,011.6 + 300) = 30,934.7
        assert made.work.checkpoint_gib == pytest.approx(12 * 931_735_552 / 2**30)
        # 1.2 x (2 bytes x 10,000,000,000 tokens + 5 x 12 x 931,735,552) = 1.2 x 75.9 GB
        assert made.work.volume_gb == 92
        assert (made.parallelism, made.precision, made.compute.world) == ("ddp", "bf16", 8)

    def test_the_encoder_decoder_computes_half_of_its_weights_for_a_token(self) -> None:
        # 1,426,944 parameters: 6 x 1,426,944 / 2 + 12 x 2 x 192 x 256 / 2 = 4,280,832 + 589,824
        assert flops_per_token(PRESETS["tiny"], "encoder_decoder") == 4_870_656
        assert planned(on_aws(architecture="encoder_decoder")).work.flops == 2_048_000 * 4_870_656


class TestCost:
    def test_this_machine_costs_nothing_and_says_why(self) -> None:
        cost = planned(here()).cost
        assert cost.usd == 0
        assert cost.basis == "this machine: nothing is charged for it; Param usd_per_hour prices it"
        # 16,923,230,208,000 FLOPs / (1e11 x 0.5), and 5 jobs that start in 30 s each
        assert (cost.hours, cost.start_hours) == pytest.approx((338.465 / 3600, 150 / 3600), rel=1e-5)

    def test_this_machine_can_be_given_a_price(self) -> None:
        cost = planned(here(usd_per_hour=2)).cost
        assert cost.usd == pytest.approx(2 * (338.465 + 150) / 3600, rel=1e-5)
        assert cost.basis == "Param usd_per_hour"

    def test_a_given_price_goes_before_the_catalogs(self) -> None:
        assert planned(on_aws(usd_per_hour=1)).cost.usd_per_hour == 1
        assert planned(on_aws()).cost.usd_per_hour == 0.428

    def test_an_unknown_price_is_not_free(self) -> None:
        cost = planned(on_aws(size="1b", instance_type="ml.p5en.48xlarge")).cost
        assert (cost.usd, cost.usd_per_hour) == (None, None)
        assert cost.basis == "no price of ml.p5en.48xlarge is known: give Param usd_per_hour"

    def test_prices_of_another_region_are_said_to_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "may differ" not in planned(on_aws()).cost.basis
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        assert "; the run is in eu-central-1, where it may differ" in planned(on_aws()).cost.basis

    def test_two_instances_train_in_half_the_time_and_start_for_twice_the_price(self) -> None:
        one, two = (planned(on_aws(size="1b", instance_count=count)).cost for count in (1, 2))
        assert two.hours == pytest.approx(one.hours / 2)
        assert one.usd is not None and two.usd == pytest.approx(one.usd + one.start_hours * 63.296)

    @settings(deadline=None)
    @given(steps=st.lists(st.integers(SEGMENTS, 20_000), min_size=2, max_size=2))
    def test_it_never_falls_with_the_steps_and_is_never_negative(self, steps: list[int]) -> None:
        fewer, more = (planned(on_aws(size="mini", steps=number)).cost for number in sorted(steps))
        assert fewer.usd is not None and more.usd is not None
        assert 0 <= fewer.usd <= more.usd
        assert 0 < fewer.hours <= more.hours
        assert max(fewer.max_runtime_s) <= max(more.max_runtime_s)

    @settings(deadline=None)
    @given(size=st.sampled_from(["tiny", "mini"]), steps=st.integers(SEGMENTS, 20_000))
    def test_segments_add_up(self, size: str, steps: int) -> None:
        made = planned(on_aws(size=size, steps=steps))
        rate = made.compute.world * made.compute.flops * made.compute.mfu
        assert made.cost.hours * 3600 * rate == pytest.approx(made.work.flops)
        for hours, limit_s in zip(made.cost.segment_hours, made.cost.max_runtime_s, strict=True):
            assert limit_s >= 3 * hours * 3600


class TestBudget:
    def test_a_run_within_it_goes_on(self) -> None:
        made = planned(on_aws(size="1b", budget_usd=800))
        # (800 / 63.296 - 1,500 / 3,600) hours at 2,097,152 x 6,043,398,144 / 3.1648e15 = 4.00463 s a step
        assert made.cost.budget_steps == 10_987
        assert "800.00 USD, which allows 10,987 steps" in as_text(made)

    def test_a_run_that_costs_as_much_goes_on(self) -> None:
        usd = planned(on_aws(size="1b")).cost.usd
        assert planned(on_aws(size="1b", budget_usd=usd)).cost.usd == usd

    def test_a_run_above_it_is_refused_with_what_it_allows(self) -> None:
        # (500 / 63.296 - 1,500 / 3,600) x 3,600 / 4.00463 = 6,726.6
        message = refusal(on_aws(size="1b", budget_usd=500))
        assert message == (
            "budget_usd=500: steps=10000 on 1 x ml.p5.48xlarge take 11.12 hours and cost about 730.48 USD; "
            "the budget allows steps=6726, 14,105,444,352 tokens"
        )
        assert planned(on_aws(size="1b", budget_usd=500, steps=6726)).cost.usd == pytest.approx(500, abs=0.1)
        assert refusal(on_aws(size="1b", budget_usd=500, steps=6727))

    @settings(deadline=None)
    @given(budget=st.floats(1, 40), steps=st.integers(SEGMENTS, 20_000))
    def test_what_a_refusal_allows_is_the_most_that_is_allowed(self, budget: float, steps: int) -> None:
        config = on_aws(size="mini", steps=steps, budget_usd=budget)
        try:
            usd = planned(config).cost.usd
        except UserError as error:
            allowed = int(re.findall(r"the budget allows steps=(\d+)", str(error))[0])
            assert allowed < steps
            cost = planned(config.model_copy(update={"steps": allowed, "budget_usd": None})).cost
            more = planned(config.model_copy(update={"steps": allowed + 1, "budget_usd": None})).cost
            assert cost.usd is not None and more.usd is not None
            assert cost.usd <= budget * (1 + 1e-9) and more.usd >= budget * (1 - 1e-9)
        else:
            assert usd is not None and usd <= budget

    def test_one_that_starting_alone_exceeds_allows_nothing(self) -> None:
        # 5 x 300 s at 63.296 USD an hour
        message = refusal(on_aws(size="1b", budget_usd=10))
        assert message.endswith("the budget allows no training: the start of 5 jobs alone costs 26.37 USD")

    def test_one_cannot_be_kept_without_a_price(self) -> None:
        config = on_aws(size="1b", instance_type="ml.p5en.48xlarge", budget_usd=1000)
        assert refusal(config) == (
            "budget_usd=1000 cannot be kept: no price of ml.p5en.48xlarge is known: give Param usd_per_hour"
        )
        priced = config.model_copy(update={"usd_per_hour": 63.3})
        assert planned(priced).cost.usd == pytest.approx(730.5, abs=0.1)

    def test_where_nothing_is_paid_any_will_do(self) -> None:
        made = planned(here(budget_usd=0.01))
        assert (made.cost.usd, made.cost.budget_steps) == (0, None)


class TestMemory:
    def test_a_model_that_does_not_fit_is_refused_with_what_would(self) -> None:
        # small: 110,119,680 parameters x 18 bytes = 1.8 GiB; 32,768 tokens x (12 x (34 x 768 + 8 x 2,048 + 2 x 1,024)
        # + 12 x 768 + 16 x 32,768) = 32,768 x 1,068,032 = 32.6 GiB; CUDA 1. An A10G has 22, of which 0.9 can be used.
        message = refusal(on_aws(size="small", instance_type="ml.g5.xlarge"))
        assert message == (
            "size='small' does not fit on ml.g5.xlarge: a process needs about 35.4 GiB (weights, gradients and "
            "optimiser 1.8, activations 32.6), and it can use 19.8 GiB of its A10G's memory; what would fit: "
            "micro_batch_tokens=16384, or instance_type='ml.g6e.xlarge'"
        )
        changes: list[dict[str, Any]] = [{"micro_batch_tokens": 16_384}, {"instance_type": "ml.g6e.xlarge"}]
        for change in changes:
            made = planned(on_aws(**{"size": "small", "instance_type": "ml.g5.xlarge", **change}))
            assert made.memory.total <= made.compute.usable_gib

    def test_several_processes_can_spread_the_model(self) -> None:
        params = {"size": "1b", "instance_type": "ml.g5.48xlarge", "micro_batch_tokens": 2048, "steps": 1000}
        assert "what would fit: parallelism='fsdp', or instance_type='ml." in refusal(on_aws(**params))
        assert planned(on_aws(**params, parallelism="fsdp")).parallelism == "fsdp"

    def test_where_nothing_would_fit_the_model_is_too_large(self) -> None:
        message = refusal(here(size="1b"))
        assert message.endswith("it can use 12.0 GiB of its CPU's memory; what would fit: a smaller size")


class TestLongestRuntime:
    def test_a_segment_that_takes_too_long_is_refused_with_the_steps_that_do_not(self) -> None:
        # mini: a step has 16,384 x 113,285,376 FLOPs, 23.2 s at 2 x 80 GFLOP/s x 0.5; 25,000 of them 161.1 hours.
        # 120 h / 3 - 300 s = 143,700 s are 6,193 steps of each of 4 segments.
        params = {"size": "mini", "instance_type": "ml.c7i.large", "batch_tokens": 16_384}
        message = refusal(on_aws(**params, steps=100_000))
        assert message == (
            "steps=100000: a segment on 1 x ml.c7i.large takes about 161.1 hours, which with a margin of 3 times is "
            "more than the 120 hours that a job may run: take a larger instance_type or instance_count, or steps=24772 "
            "at most"
        )
        assert max(planned(on_aws(**params, steps=24_772)).cost.max_runtime_s) <= 120 * 3600
        assert "steps=24772 at most" in refusal(on_aws(**params, steps=24_773))
        assert planned(on_aws(size="mini", instance_type="ml.c7i.16xlarge", batch_tokens=16_384, steps=100_000))

    def test_this_machine_has_no_larger_instance(self) -> None:
        message = refusal(here(size="mini", batch_tokens=16_384, steps=200_000))
        assert re.search(r"that a job may run: take steps=\d+ at most$", message)

    def test_one_step_that_takes_too_long_is_of_too_large_a_model(self) -> None:
        message = refusal(on_aws(size="mini", mfu=1e-7, steps=4))
        assert message.endswith("that a job may run: take a larger instance_type or instance_count, or a smaller size")

    def test_a_short_segment_has_a_quarter_of_an_hour(self) -> None:
        assert planned(here(steps=4)).cost.max_runtime_s == (900,) * 4


class TestOther:
    def test_documents_of_less_than_a_batch_are_refused(self) -> None:
        assert refusal(here(), 2047) == (
            "the sources hold 2,047 bytes, less than one batch of batch_tokens=2048: give more documents, or a smaller "
            "batch"
        )
        assert planned(here(), 2048).work.corpus_tokens == 512

    def test_text_that_is_seen_too_often_is_noted(self) -> None:
        assert planned(here(), 4 * 512_000).notes == ()  # 2,048,000 / 512,000 = 4 epochs
        [note] = planned(here(), 4 * 511_500).notes
        assert note.startswith("the corpus is seen 4.0 times; beyond about 4 times repeated text teaches little")

    def test_dollars_of_spot_instances_are_noted(self) -> None:
        assert planned(on_aws(spot=True)).notes == ("spot instances are cheaper; the dollars are those on demand",)
        assert planned(here(spot=True)).notes == ()

    def test_the_plan_comes_back_from_its_file(self) -> None:
        made = planned(on_aws(size="1b", budget_usd=1000, spot=True))
        again = Plan.model_validate(json.loads(json.dumps(made.model_dump(mode="json"))))
        assert again == made and again.digest == made.digest

    def test_another_plan_has_another_digest(self) -> None:
        digests = [planned(config).digest for config in (on_aws(), on_aws(), on_aws(steps=601), on_aws(mfu=0.4))]
        assert digests[0] == digests[1] and len(set(digests)) == 3

    @pytest.mark.parametrize("size", PRESETS)
    def test_all_figures_are_shown(self, size: str) -> None:
        made = planned(on_aws(size=size))
        text = as_text(made)
        for shown in (f"{made.work.parameters:,} parameters", f"{made.work.tokens:,} in", f"{made.cost.usd:,.2f} USD"):
            assert shown in text
        assert all(len(line) < 200 for line in text.splitlines())

"""Prices are chosen by date, none is made up, and a list that is wrong says where."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import pytest

from include.errors import UserError
from include.models.embeddings import get_embedder
from include.models.prices import PRICES, load_prices, price_of

DAY = date(2025, 6, 1)


def write(path: Path, *entries: str) -> Path:
    file = path / "prices.yaml"
    file.write_text("prices:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries))
    return file


def entry(model: str = "m", day: object = "2024-01-01", usd: object = 0.5, source: str = "list") -> str:
    return f"model: {model}, valid_from: {day}, usd_per_1000_input_tokens: {usd}, source: {source}"


@pytest.mark.parametrize(
    ("embedder", "usd_per_million"),
    [("titan-v2", 0.02), ("cohere-english-v3", 0.1), ("cohere-multilingual-v3", 0.1), ("minilm", 0), ("hashing", 0)],
)
def test_the_embedders_of_the_project_have_a_price(embedder: str, usd_per_million: float) -> None:
    price = price_of(get_embedder(embedder).name, DAY)
    assert price is not None
    assert price.usd(1_000_000) == pytest.approx(usd_per_million)
    assert price.source == "this machine" or "check your region" in price.source


@pytest.mark.parametrize("model", ["openai-text-embedding-3-small-1536", "titan", "amazon.titan-embed-text-v2", ""])
def test_a_model_that_is_not_listed_has_no_price_rather_than_none_to_pay(model: str) -> None:
    assert price_of(model, DAY) is None


def test_the_price_in_force_on_the_day_is_taken(tmp_path: Path) -> None:
    prices = load_prices(write(tmp_path, entry(day="2025-01-01", usd=1), entry(day="2024-01-01", usd=3)))
    found = {day: prices.price_of("m-1024", date.fromisoformat(day)) for day in ("2023-12-31", "2024-12-31")}
    assert found["2023-12-31"] is None
    assert found["2024-12-31"] is not None and found["2024-12-31"].usd(2000) == 6
    first = prices.price_of("m", date(2025, 1, 1))
    assert first is not None and first.usd(2000) == 2


def test_a_whole_name_wins_over_one_without_its_number(tmp_path: Path) -> None:
    prices = load_prices(write(tmp_path, entry("m-256", usd=1), entry("m", day="2025-01-01", usd=2)))
    found = [prices.price_of(name, DAY) for name in ("m-256", "m-512")]
    assert [price.model for price in found if price] == ["m-256", "m"]


def test_the_version_is_the_digest_of_the_file() -> None:
    assert load_prices().version == hashlib.sha256(PRICES.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"prices: [{{{entry(usd=-1)}}}]", "prices.0.usd_per_1000_input_tokens=-1: Input should be greater than"),
        (f"prices: [{{{entry(usd='.nan')}}}]", "usd_per_1000_input_tokens=nan: Input should be a finite number"),
        (f"prices: [{{{entry(day='soon')}}}]", "prices.0.valid_from='soon': Input should be a valid date"),
        (f"prices: [{{{entry()}, unit: image}}]", "prices.0.unit='image': Extra inputs are not permitted"),
        (f"prices: [{{{entry()}}}, {{{entry(usd=1)}}}]", "model 'm' has 2 prices from 2024-01-01 on"),
        ("prices: cheap", "prices='cheap': Input should be a valid tuple"),
        ("- 1", "must be a list under the one name 'prices'"),
        ("prices: [", "cannot be read: while parsing"),
        ("", "must be a list under the one name 'prices'"),
    ],
)
def test_a_list_that_is_wrong_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_prices(file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prices .*gone\.yaml cannot be read"):
        load_prices(tmp_path / "gone.yaml")

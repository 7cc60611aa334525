"""What models cost: the dated list include/catalog/prices.yaml."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from datetime import date
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.errors import UserError

PRICES = Path(__file__).parent.parent / "catalog" / "prices.yaml"
_NUMBER_AT_END = re.compile(r"-\d+$")


class Price(BaseModel):
    """What a model costs from a day on, until a later entry of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    """As usage names it, without the dimension or version number at its end: neither changes what it costs."""
    valid_from: date
    usd_per_1000_input_tokens: float = Field(ge=0, allow_inf_nan=False)
    source: str = Field(min_length=1)
    """Who says so."""

    def usd(self, tokens: int) -> float:
        """The price of so many input tokens."""
        return tokens * self.usd_per_1000_input_tokens / 1000


class PriceList(BaseModel):
    """All prices of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prices: tuple[Price, ...]
    version: str
    """Digest of the file that they are from."""

    def price_of(self, model: str, on: date) -> Price | None:
        """The price of a model that is in force on a day (UTC); None if none is known."""
        names = (model, _NUMBER_AT_END.sub("", model))
        known = [price for price in self.prices if price.model in names and price.valid_from <= on]
        # The whole name is the closer match, whatever the dates.
        return max(known, key=lambda price: (price.model == model, price.valid_from), default=None)


@cache
def load_prices(path: Path = PRICES) -> PriceList:
    """Read a list of prices, once; UserError with one line that names the entry and what is wrong with it."""
    import yaml

    try:
        data = path.read_bytes()
        value = yaml.safe_load(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"prices {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict) or value.keys() != {"prices"}:
        raise UserError(f"prices {path}: must be a list under the one name 'prices'")
    try:
        found = PriceList(prices=value["prices"], version=hashlib.sha256(data).hexdigest())
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        raise UserError(f"prices {path}: {place}={detail['input']!r}: {detail['msg']}") from None
    for (model, day), count in Counter((price.model, price.valid_from) for price in found.prices).items():
        if count > 1:
            raise UserError(f"prices {path}: model {model!r} has {count} prices from {day} on; one is allowed")
    return found


def price_of(model: str, on: date) -> Price | None:
    """The price of a model by the project's list; None if none is known."""
    return load_prices().price_of(model, on)

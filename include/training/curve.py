"""The plot of a training run: its loss against held-out loss and baselines, and what steered it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

_TRAIN, _HELD_OUT, _GREY = "#9db8d6", "#c4501b", "#666666"
_SIZE_INCHES, _DPI = (8.0, 5.4), 120


def draw(evaluation: Mapping[str, Any], title: str) -> bytes:
    """A PNG; the same evaluation gives the same bytes.

    `evaluation` is evaluation.json. Losses are in nats per token; a decoder's have an axis in bits per byte too, by the
    tokens and bytes of the held-out documents. A curve without a point is drawn as an empty frame that says so.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    curve = evaluation["curve"]
    with rc_context({"font.family": "sans-serif", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
        loss, steering = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _draw_loss(loss, curve, evaluation)
        _draw_steering(steering, curve)
        figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
        for axes in (loss, steering):
            axes.grid(color="#e4e4e4", lw=0.6)
            axes.set_axisbelow(True)
            axes.spines["top"].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})  # the metadata name a release of matplotlib
    return buffer.getvalue()


def baselines(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Name -> cost of what the model has to beat, in nats per token of the held-out documents."""
    found = evaluation["baselines"]
    if evaluation["architecture"] == "decoder":
        nats = _nats_per_bit_per_byte(evaluation)
        named = {f"{found['ngram']['order']}-gram model": found["ngram"], "zlib": found["zlib"]}
        return {name: one["bits_per_byte"] * nats for name, one in named.items()}
    return {"unigram": found["unigram"]["loss_nats_per_token"]}


def _draw_loss(axes: Any, curve: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> None:
    looks = [point for point in curve if point.get("held_out_loss") is not None]
    axes.plot(*_line(curve, "loss"), color=_TRAIN, lw=1.4, label="train")
    axes.plot(*_line(looks, "held_out_loss"), color=_HELD_OUT, lw=1.2, marker="o", ms=3.5, label="held out, some rows")
    final = evaluation["held_out"]["loss_nats_per_token"]
    axes.plot([evaluation["step"]], [final], color=_HELD_OUT, marker="*", ms=11, ls="none", label="held out, evaluated")
    for (name, value), style in zip(sorted(baselines(evaluation).items()), ("--", ":"), strict=False):
        axes.axhline(value, color=_GREY, ls=style, lw=1, label=f"{name}: {value:.2f}")
    axes.set_ylabel("loss (nats per token)")
    if evaluation["architecture"] == "decoder":
        nats = _nats_per_bit_per_byte(evaluation)
        side = axes.secondary_yaxis("right", functions=(lambda loss: loss / nats, lambda bits: bits * nats))
        side.set_ylabel("bits per byte")
    if not curve:
        axes.text(0.5, 0.5, "no point of the curve was kept", transform=axes.transAxes, ha="center", color=_GREY)
    axes.legend(frameon=False, ncols=2, loc="upper right")


def _draw_steering(axes: Any, curve: Sequence[Mapping[str, Any]]) -> None:
    axes.plot(*_line(curve, "grad_norm"), color=_GREY, lw=1)
    axes.set_ylabel("gradient norm", color=_GREY)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    other = axes.twinx()
    other.plot(*_line(curve, "learning_rate"), color=_HELD_OUT, lw=1.2)
    other.set_ylabel("learning rate", color=_HELD_OUT)
    other.set_ylim(bottom=0)
    other.spines["top"].set_visible(False)
    other.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _line(curve: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    points = [(point["step"], point[name]) for point in curve if point.get(name) is not None]
    finite = [(float(step), float(value)) for step, value in points if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def _nats_per_bit_per_byte(evaluation: Mapping[str, Any]) -> float:
    held_out = evaluation["held_out"]
    return float(math.log(2) * held_out["bytes"] / held_out["tokens"])

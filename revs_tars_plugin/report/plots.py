"""Plots as SVG that takes the page's colours, light or dark, and the page's width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import InputError

# Colours that stand for the page's own: written into the SVG, then replaced by these variables of its style sheet.
INK, GRID, BEFORE, AFTER, SOFT = "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05"
_VARIABLES = {INK: "--ink", GRID: "--grid", BEFORE: "--before", AFTER: "--after", SOFT: "--soft"}
_COLOURS = {"before": BEFORE, "after": AFTER, "never learned": SOFT}
_WIDTH, _HEIGHT = 4.9, 3.0
_TINY_KL = 1e-9


def ranks_by_layer(moments: Mapping[str, Sequence[Sequence[int]]], k: int) -> str:
    """Draws the best-hidden token's rank at every layer: all secrets thinly, their median boldly.

    Args:
        moments: For "before" and "after" the ranks of every secret at every layer.
        k: From where on a token counts as hidden.
    """
    with _drawing("ranks") as (axes, finish):
        for moment, secrets in moments.items():
            colour = AFTER if moment == "after" else BEFORE
            layers = range(len(secrets[0]))
            for ranks in secrets[:40]:
                axes.plot(layers, [rank + 1 for rank in ranks], color=colour, linewidth=0.6, alpha=0.25)
            middle = [median([ranks[layer] for ranks in secrets]) + 1 for layer in layers]
            # Dashed and on top, since the two lie on each other where nothing was changed.
            dashes, above = ((3, 2), 3) if moment == "before" else ((), 2)
            label = f"{moment} (median)"
            axes.plot(layers, middle, color=colour, linewidth=2.2, dashes=dashes, zorder=above, label=label)
        axes.axhline(k + 1, color=INK, linewidth=0.8, linestyle="--")
        axes.annotate(f"hidden from {k}", (0, k + 1), xytext=(2, 3), textcoords="offset points", fontsize=8)
        axes.set_yscale("log")
        axes.set_xlabel("layer")
        axes.set_ylabel("rank + 1 in the logit lens")
        axes.legend()
        return finish()


def changes_by_layer(name: str, layers: Sequence[Mapping[str, int]], unit: str) -> str:
    """Draws how many neurons, or products of rank one, each layer's change has; `name` is the plot's."""
    with _drawing(name) as (axes, finish):
        axes.bar([change["layer"] for change in layers], [change[unit] for change in layers], color=AFTER)
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{unit} changed" if unit == "neurons" else f"{unit} added")
        axes.yaxis.get_major_locator().set_params(integer=True)
        return finish()


def bars(
    name: str, measures: Sequence[str], series: Mapping[str, Sequence[float | None]], label: str, *, most: float = 1.0
) -> str:
    """Draws figures from 0 on as bars, those of several models side by side.

    Args:
        name: The plot's name, for its identifiers.
        measures: What is measured.
        series: For "after", and perhaps "before" and "never learned", a figure a measure; None where there is none.
        label: The label of the axis.
        most: The highest figure there can be.
    """
    together = 0.8 if len(series) > 1 else 0.6
    height = together / len(series)
    with _drawing(name, height=max(1.7, 0.7 + (0.16 + 0.14 * len(series)) * len(measures))) as (axes, finish):
        for place, (model, values) in enumerate(series.items()):
            offset = (place + 0.5) * height - together / 2
            for row, value in enumerate(values):
                if value is None:
                    continue
                axes.barh(row + offset, value, 0.9 * height, color=_COLOURS[model])
                axes.annotate(
                    f"{value:.2f}",
                    (value, row + offset),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    size=8,
                )
        axes.set_yticks(range(len(measures)), measures)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * most)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        if len(series) > 1:
            for model in series:
                axes.barh(0, 0, color=_COLOURS[model], label=model)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))
        return finish()


def divergences(values: Sequence[float], middle: float, mean: float) -> str:
    """Draws the distribution of KL(original || edited) over the positions of ordinary text, on a logarithmic axis."""
    with _drawing("divergences") as (axes, finish):
        import numpy as np

        kept = np.clip(np.array(values), _TINY_KL, None)
        edges = np.geomspace(kept.min(), max(kept.max(), kept.min() * 10), 41)
        axes.hist(kept, bins=edges, color=AFTER)
        axes.set_xscale("log")
        for value, text, side in ((middle, "median", "right"), (mean, "mean", "left")):
            value = max(value, _TINY_KL)
            axes.axvline(value, color=INK, linewidth=0.9, linestyle="--")
            place, kinds = (value, 0.95), ("data", "axes fraction")
            axes.annotate(f" {text} {value:.2g} ", place, xycoords=kinds, size=8, va="center", ha=side)
        axes.margins(x=0.08)
        axes.set_xlabel("KL(original || edited), nats")
        axes.set_ylabel("positions")
        return finish()


def trade_off(
    name: str,
    points: Sequence[tuple[str, float, float]],
    *,
    cost: str,
    gain: str,
    marked: Collection[str] = (),
    levels: Mapping[str, float] = {},
    logarithmic: bool = True,
    logarithmic_gain: bool = False,
    most: float | None = None,
) -> str:
    """Draws methods by what they cost and what they reach.

    Args:
        name: The plot's name, for its identifiers.
        points: Name, cost, and what is reached of each.
        cost: The label of the axis of costs.
        gain: The label of the other axis.
        marked: Names of the methods that are drawn in the strong colour.
        levels: What models without a cost reach, as dashed lines.
        logarithmic: Whether the axis of costs is.
        logarithmic_gain: Whether the other axis is.
        most: The highest that can be reached, where there is such a thing.
    """
    with _drawing(name) as (axes, finish):
        from matplotlib.ticker import LogLocator, NullFormatter

        for label, paid, score in points:
            paid = max(paid, _TINY_KL) if logarithmic else paid
            axes.scatter(paid, score, s=46, color=AFTER if label in marked else BEFORE, zorder=3)
            axes.annotate(label, (paid, score), xytext=(6, 4), textcoords="offset points", size=9)
        for label, score in levels.items():
            axes.axhline(score, color=INK, linewidth=0.8, linestyle="--")
            axes.annotate(
                label,
                (0.01, score),
                xycoords=("axes fraction", "data"),
                xytext=(2, 3),
                textcoords="offset points",
            )
        if most is not None:
            axes.set_ylim(-0.05 * most, 1.1 * most)
        axes.margins(x=0.25)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if logarithmic_gain:
            axes.set_yscale("log")
        axes.set_xlabel(cost)
        axes.set_ylabel(gain)
        return finish()


def median(values: Sequence[float]) -> float:
    """Returns the lower median."""
    return sorted(values)[(len(values) - 1) // 2]


@contextmanager
def _drawing(name: str, height: float = _HEIGHT) -> Iterator[tuple[Any, Callable[[], str]]]:
    """Yields axes in the page's style, and what gives the finished SVG; no global state of the library is used."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("The report needs matplotlib and jinja2: pip install 'revs-tars-plugin[report]'") from error
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9,
        "font.family": "sans-serif",
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": GRID,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.5,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots()

        def finish() -> str:
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            return _for_page(buffer.getvalue(), name)

        yield axes, finish


def _for_page(svg: str, name: str) -> str:
    """The drawing alone, with identifiers of its own and the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    # Its size follows the page; what it says stands in the figure around it.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)

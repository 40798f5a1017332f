"""A tally's plots, as SVG text: rates, latency by class over time, and by kind altogether."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from loadtests.budgets import CLASSES, class_of
from loadtests.tally import Cell, Tally, quantile

__all__ = ["plots"]

_POINTS = 240  # no plot is finer
_COLOURS = {"interactive": "#2563a8", "bulk": "#c77d11"}
_SHARES = tuple(i / 200 for i in range(1, 200))


def plots(tally: Tally) -> Iterator[tuple[str, str]]:
    """Titles and pictures."""
    import matplotlib as mpl

    mpl.use("Agg")  # no screen
    mpl.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9})
    windows = _windows(tally)
    yield "Requests a second", _drawn(_rates, tally, windows)
    yield "Latency over time", _drawn(_latency, tally, windows)
    yield "Tokens a second", _drawn(_tokens, tally, windows)
    yield "Latency by kind", _drawn(_shares, tally, windows)


def _windows(tally: Tally) -> Sequence[range]:
    span = tally.span
    width = max(1, math.ceil(len(span) / _POINTS))
    return [range(at, min(at + width, span.stop)) for at in span[::width]]


def _cells(tally: Tally, windows: Sequence[range], service_class: str | None) -> list[Cell]:
    """One a window, of one class or of both."""
    found = [Cell() for _ in windows]
    if not windows:
        return found
    start, width = windows[0].start, len(windows[0])
    for (second, kind), cell in tally.cells.items():
        if service_class in (None, class_of(kind)):
            found[(second - start) // width].add(cell)
    return found


def _rates(axes: Any, tally: Tally, windows: Sequence[range]) -> None:
    cells, at = _cells(tally, windows, None), _times(windows)
    for name, colour in (("answered", "#1a7f4b"), ("refused", "#c77d11"), ("failed", "#b3261e")):
        counts = [getattr(c, name) / len(w) for c, w in zip(cells, windows, strict=True)]
        axes.plot(at, counts, color=colour, lw=1.4, label=name)
    axes.set_ylabel("requests/s")
    axes.set_ylim(bottom=0)


def _latency(axes: Any, tally: Tally, windows: Sequence[range]) -> None:
    at = _times(windows)
    for name in CLASSES:
        cells = _cells(tally, windows, name)
        for share, style in ((0.5, "-"), (0.95, "--")):
            values = [quantile(cell, share) for cell in cells]
            label = f"{name}, p{share * 100:.0f}"
            # A window between two without answers has no line to be on.
            axes.plot(
                at, values, ls=style, marker=".", ms=3, color=_COLOURS[name], lw=1.3, label=label
            )
    axes.set_yscale("log")
    _plain(axes.yaxis)
    axes.set_ylabel("seconds")


def _tokens(axes: Any, tally: Tally, windows: Sequence[range]) -> None:
    rates = [
        [cell.tokens / len(w) for cell, w in zip(_cells(tally, windows, name), windows,
                                                 strict=True)]
        for name in CLASSES
    ]  # fmt: skip
    colours = [_COLOURS[name] for name in CLASSES]
    axes.stackplot(_times(windows), *rates, labels=CLASSES, colors=colours, alpha=0.75)
    axes.set_ylabel("tokens/s")
    axes.set_ylim(bottom=0)


def _shares(axes: Any, tally: Tally, windows: Sequence[range]) -> None:
    for number, kind in enumerate(tally.kinds):
        cell = _of_kind(tally, kind)
        if cell.answered:
            values = [quantile(cell, share) for share in _SHARES]
            axes.plot(values, [100 * s for s in _SHARES], color=f"C{number}", lw=1.3, label=kind)
    axes.set_xscale("log")
    _plain(axes.xaxis)
    axes.set_xlabel("seconds")
    axes.set_ylabel("% of answers")
    axes.set_ylim(0, 100)


def _plain(axis: Any) -> None:
    """Numbers of seconds on a logarithmic axis, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _of_kind(tally: Tally, kind: str) -> Cell:
    return tally.total(lambda _, one: one == kind)


def _times(windows: Sequence[range]) -> list[float]:
    return [window.start - windows[0].start for window in windows]


def _drawn(draw: Any, tally: Tally, windows: Sequence[range]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, tally, windows)
    if not axes.get_xlabel():
        axes.set_xlabel("seconds since the start")
    axes.grid(color="#e6e9ee", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    svg = text.getvalue()
    return svg[svg.index("<svg") :]

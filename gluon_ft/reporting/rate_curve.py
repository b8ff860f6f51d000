"""A picture of accuracy against learning rate, on a logarithmic axis."""
from __future__ import annotations

from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gluon_ft.errors import DataError
from gluon_ft.io.atomic import write as write_atomic
from gluon_ft.reporting.plots import COLOURS, DPI, png, rate_axes


def rate_curve(rows: list[dict], path, guessing: float | None = None, title: str | None = None) -> Path:
    """Draws the rows of `training.lr_finder.sweep` into one PNG and returns its path.

    Parameters
    ----------
    rows : list of dict
        `lr`, and `median`, `min`, `max` of the accuracy (0..1; None where the loss was not finite, marked by a cross
        at the bottom).
    path : path-like; written whole or not at all
    guessing : float, optional
        Accuracy of guessing, drawn as a dashed line.
    title : str, optional

    Raises DataError where there is no row.
    """
    if not rows:
        raise DataError("there are no rates to draw", expected="at least one")
    finite = [row for row in rows if row["median"] is not None]
    rates = [row["lr"] for row in finite]
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(6, 4), dpi=DPI, layout="constrained")
        panel = figure.subplots()
        panel.plot(rates, [row["median"] for row in finite], color=COLOURS[0], marker="o", linewidth=1.9,
                   label="validation accuracy")
        panel.fill_between(rates, [row["min"] for row in finite], [row["max"] for row in finite], color=COLOURS[0],
                           alpha=0.18, linewidth=0)
        if guessing is not None:
            panel.axhline(guessing, color="#777777", linestyle=(0, (4, 2)), linewidth=1.2, label="reach of guessing")
        lost = [row["lr"] for row in rows if row["median"] is None]
        if lost:
            panel.plot(lost, [0.02] * len(lost), linestyle="none", marker="X", markersize=9, color=COLOURS[1],
                       label="loss not finite")
        rate_axes(panel, "accuracy")
        panel.set_xticks([row["lr"] for row in rows], [f"{row['lr']:g}" for row in rows])
        panel.set_xticks([], minor=True)
        panel.set_ylim(0, 1.02)
        panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        if title:
            panel.set_title(title, parse_math=False)
        return write_atomic(path, png(figure))

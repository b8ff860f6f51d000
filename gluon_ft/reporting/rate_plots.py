"""Pictures over learning rates: the accuracy of a sweep, and the loss of a learning-rate range test."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gluon_ft.errors import DataError
from gluon_ft.io.atomic import write as write_atomic
from gluon_ft.io.paths import AnyPath
from gluon_ft.reporting.plots import COLOURS, DASHES, DPI, frame, png, shortened


def rate_curve(rows: list[dict], path: AnyPath, guessing: float | None = None, title: str | None = None) -> Path:
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

    Raises
    ------
    DataError
        Where there is no row.
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
            panel.axhline(guessing, color="#777777", linestyle=DASHES, linewidth=1.2, label="reach of guessing")
        lost = [row["lr"] for row in rows if row["median"] is None]
        if lost:
            panel.plot(lost, [0.02] * len(lost), linestyle="none", marker="X", markersize=9, color=COLOURS[1],
                       label="loss not finite")
        _rate_axes(panel, "accuracy")
        panel.set_xticks([row["lr"] for row in rows], [f"{row['lr']:g}" for row in rows])
        panel.set_xticks([], minor=True)
        panel.set_ylim(0, 1.02)
        panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        if title:
            panel.set_title(title, parse_math=False)
        return write_atomic(path, png(figure))


def rate_plot(found: Any, path: AnyPath, title: str | None = None) -> Path:
    """Draws the result of a learning-rate range test into one PNG, 1050 pixels wide.

    Parameters
    ----------
    found : lr_finder.Found
        Of `find_lr`.
    path : path-like
        Of the PNG; written whole or not at all.
    title : str, optional
        Default none.

    Returns
    -------
    Path
    """
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(7, 4.4), dpi=DPI, layout="constrained")
        panel = figure.subplots()
        panel.plot(found.rates, found.losses, color=COLOURS[0], alpha=0.35, linewidth=0.9, marker="o", markersize=2.5,
                   label="each step")
        panel.plot(found.rates, found.smoothed, color=COLOURS[0], linewidth=2, label="smoothed")
        if found.suggestion is not None:
            _mark(panel, found)
        panel.set_ylim(*_range(found))
        _rate_axes(panel, "training loss (mean per image)")
        if title:
            panel.set_title(shortened(title, 75), fontsize=11, parse_math=False)
        return write_atomic(path, png(figure))


def _mark(panel, found):
    height = float(np.interp(np.log(found.suggestion), np.log(found.rates), found.smoothed))
    panel.axvline(found.suggestion, color=COLOURS[1], linestyle=DASHES, linewidth=1.2)
    panel.plot([found.suggestion], [height], color=COLOURS[1], marker="D", markersize=6, linestyle="none",
               label=f"suggestion {found.suggestion:g}")


def _range(found):
    """From below the lowest loss to above the highest before it; what comes after the break may leave the picture."""
    before = found.losses[:int(np.argmin(found.smoothed)) + 1]
    low, high = float(found.losses.min()), float(max(before.max(), found.smoothed.max()))
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    return low - margin, high + 2 * margin


def _rate_axes(panel, value: str) -> None:
    """A logarithmic axis of rates, `value` as the other's label, a legend."""
    panel.set_xscale("log")
    panel.set_xlabel("learning rate, log scale")
    panel.set_ylabel(value)
    frame(panel)
    panel.legend(frameon=False, fontsize=9, loc="best")

"""Picture of a learning-rate range test: the loss at each rate, with the suggestion marked."""
from __future__ import annotations

from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from gluon_ft.io.atomic import write as write_atomic
from gluon_ft.reporting.plots import COLOURS, DASHES, DPI, png, rate_axes, shortened


def rate_plot(found, path, title: str | None = None) -> Path:
    """Draws the result of `training.find_lr.find_lr` into one PNG, 1050 pixels wide, and returns its path.

    found : Found; path : written whole or not at all.
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
        rate_axes(panel, "training loss (mean per image)")
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

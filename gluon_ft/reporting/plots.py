"""Pictures of a run: curves of several runs in one picture, and grids of sample images.

Drawn on Matplotlib's Agg canvas directly, so neither a display nor the user's own backend and style is touched.
"""
from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gluon_ft.errors import DataError
from gluon_ft.io.atomic import write as write_atomic
from gluon_ft.io.paths import AnyPath
from gluon_ft.reporting.lettering import choose_fonts, drawable

# Okabe and Ito's colours that differ for every kind of colour vision (https://jfly.uni-koeln.de/color/), without
# the yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LABELS = {"loss": "loss (mean per image)", "accuracy": "accuracy", "top5": "top-5 accuracy"}
DASHES = (0, (4, 2))
DPI = 150
# Above this ratio of the highest to the median loss the rest would be a flat line on a linear axis.
LOG_RATIO = 50
# Up to this many points of a validation curve have a marker.
MARKED_POINTS = 20


def curves(series: dict[str, list[dict]], path: AnyPath, title: str | None = None,
           metrics: tuple[str, ...] = ("loss", "accuracy")) -> Path:
    """Draws the histories of several runs into one PNG and returns its path.

    Parameters
    ----------
    series : dict
        Name of the run -> its records, one an epoch: `epoch` (1-based), `train_<metric>` and
        `validation_<metric>` (accuracies 0..1; None or NaN leaves a gap), and `seed` where there are several:
        then the line is the median over the seeds that have the epoch, and a band spans their min and max. The
        last record of an epoch and seed counts.
    path : path-like
        The PNG, 1500 pixels wide for two panels; written whole or not at all.
    title : str, optional
    metrics : tuple of str
        One panel each, training dashed and validation solid.

    Raises
    ------
    DataError
        Where no record has an epoch and one of the metrics.
    """
    return write_atomic(path, curves_png(series, title, metrics))


def curves_png(series: dict[str, list[dict]], title: str | None = None,
               metrics: Sequence[str] = ("loss", "accuracy")) -> bytes:
    """Draws the picture that `curves` writes.

    Parameters
    ----------
    series, title, metrics
        As in `curves`.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    DataError
        No record has an epoch and one of the metrics.
    """
    lines = {(name, metric, part): median_and_range(records, f"{part}_{metric}")
             for name, records in series.items() for metric in metrics for part in ("train", "validation")}
    if all(line is None for line in lines.values()):
        raise DataError("there are no curves to draw", expected=f"records with epoch and train_{metrics[0]} or "
                        f"validation_{metrics[0]}", found=f"{sum(map(len, series.values()))} records")
    columns = len(metrics)
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(5 * columns, 4.2 + 0.15 * len(series)), dpi=DPI, layout="constrained")
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
        for panel, metric in zip(figure.subplots(1, columns, squeeze=False).ravel(), metrics):
            _panel(panel, metric, {(name, part): line for (name, m, part), line in lines.items() if m == metric},
                   list(series))
        _legends(figure, series, columns, title)
        return png(figure)


def image_grid(images: Sequence[np.ndarray], titles: Sequence[str], path: AnyPath, columns: int = 8) -> Path:
    """Draws sample images with a title each into one PNG and returns its path.

    Parameters
    ----------
    images : sequence of uint8 arrays, each HxW (grey) or HxWx3 (RGB); sizes may differ
    titles : sequence of str, as many as images, or None
    path : path-like; written whole or not at all
    columns : int, default 8

    Raises
    ------
    DataError
        Where there is no image, where titles and images differ in number, or an image is not as above.
    """
    images = [np.asarray(image) for image in images]
    titles = [""] * len(images) if titles is None else [str(title) for title in titles]
    _check_images(images, titles)
    columns = max(1, min(columns, len(images)))
    rows = math.ceil(len(images) / columns)
    wrapped = [_wrapped(drawable(title.replace("\n", " "))) for title in titles]
    text = 0.16 * max(title.count("\n") + 1 if title else 0 for title in wrapped)
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(1.25 * columns + 0.1, (1.2 + text) * rows + 0.1), dpi=DPI, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels:
            panel.set_axis_off()
            # Matplotlib would make ticks to lay them out, and not draw them: half of the time.
            panel.set(xticks=[], yticks=[])
        for panel, image, title in zip(panels, images, wrapped):
            small = max(image.shape[:2]) < 1.2 * DPI
            panel.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest" if small else "antialiased")
            panel.set_title(title, fontsize=8, pad=3, parse_math=False)
        return write_atomic(path, png(figure))


def first_and_last(loader: Any, path: AnyPath, count: int = 8) -> Path:
    """Draws the first and the last images that a loader reads, with their classes.

    They are shown as decoded, without the network's preprocessing, in the source's order: of a folder of classes they
    are images of the first and of the last class.

    Parameters
    ----------
    loader : loader
        With `source`, `classes` and `transform`, as `loaders.open` gives it.
    path : path-like
        Of the PNG; written whole or not at all.
    count : int, default 8
        Images from either end.

    Returns
    -------
    Path
    """
    source = loader.source
    total = len(source.labels)
    chosen = [*range(min(count, total)), *range(max(count, total - count), total)]
    channels = loader.transform.preprocessing.channels
    return image_grid([source.image(i, channels, 0) for i in chosen],
                      [loader.classes[source.labels[i]] for i in chosen], path, columns=count)


def _check_images(images, titles):
    if not images:
        raise DataError("there are no images to draw", expected="at least one")
    if len(images) != len(titles):
        raise DataError("images and titles differ in number", expected=f"{len(images)} titles", found=len(titles))
    for number, image in enumerate(images):
        colour = image.ndim == 3 and image.shape[2] == 3
        if image.dtype != np.uint8 or not (image.ndim == 2 or colour) or image.size == 0:
            raise DataError(f"image {number} cannot be drawn", expected="uint8 HxW or HxWx3",
                            found=f"{image.dtype} {'x'.join(map(str, image.shape)) or 'scalar'}")


def median_and_range(records: list[dict], key: str) -> tuple[Any, Any, Any, Any, int] | None:
    """(epochs, median, min, max, number of seeds) of one curve, NaN in the gaps; None where no record has `key`."""
    values = {}
    for record in records:
        if record.get("epoch") is not None and key in record:
            value = record[key]
            number = np.nan if value is None else float(value)
            values[record.get("seed"), int(record["epoch"])] = number if math.isfinite(number) else np.nan
    if not values:
        return None
    seeds = list(dict.fromkeys(seed for seed, _ in values))
    first, last = min(epoch for _, epoch in values), max(epoch for _, epoch in values)
    grid = np.full((len(seeds), last - first + 1), np.nan)
    for (seed, epoch), value in values.items():
        grid[seeds.index(seed), epoch - first] = value
    with warnings.catch_warnings():
        # An epoch without any finite value is a gap, not an accident.
        warnings.simplefilter("ignore", RuntimeWarning)
        return (np.arange(first, last + 1), np.nanmedian(grid, 0), np.nanmin(grid, 0), np.nanmax(grid, 0), len(seeds))


def _panel(panel, metric, lines, names):
    """One metric of every run: training dashed, validation solid, bands where there are several seeds."""
    present = {key: line for key, line in lines.items() if line is not None}
    for (name, part), (epochs, median, low, high, seeds) in present.items():
        number = names.index(name)
        colour = COLOURS[number % len(COLOURS)]
        training = part == "train"
        panel.plot(epochs, median, color=colour, linewidth=1.3 if training else 1.9, alpha=0.85 if training else 1,
                   linestyle=DASHES if training else "-", marker=_marker(number), markersize=3.5,
                   markerfacecolor="white" if training else colour, markevery=_marked(median, training),
                   zorder=2.5 if training else 3)
        if seeds > 1:
            panel.fill_between(epochs, low, high, color=colour, alpha=0.08 if training else 0.18, linewidth=0)
    panel.set_xlabel("epoch")
    panel.set_ylabel(LABELS.get(metric, metric.replace("_", " ")))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    frame(panel)
    if present:
        first, last = min(line[0][0] for line in present.values()), max(line[0][-1] for line in present.values())
        margin = max(0.5 if first == last else 0.15, 0.02 * (last - first))
        # There is no epoch 0, so no tick for it.
        panel.set_xlim(first - min(margin, 0.6), last + margin)
        _value_axis(panel, metric, np.concatenate([np.concatenate(line[1:4]) for line in present.values()]))


def _value_axis(panel, metric, values):
    values = values[np.isfinite(values)]
    if metric in ("accuracy", "top5"):
        # Room for the marker of 0% and 100%, but no axis that promises accuracies beyond them.
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, -0.02), min(high, 1.02))
        panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    elif values.size and values.min() > 0 and values.max() > LOG_RATIO * np.median(values):
        panel.set_yscale("log")
        panel.set_ylabel(f"{panel.get_ylabel()}, log scale")
    if not values.size:
        panel.text(0.5, 0.5, "no finite value", transform=panel.transAxes, ha="center", va="center", color="#666666")


def short_label(metric: str) -> str:
    """The name of a metric without its unit: 'loss', 'accuracy', 'top-5 accuracy'."""
    return LABELS.get(metric, metric.replace("_", " ")).split(" (")[0]


def _marker(number):
    return MARKERS[number // len(COLOURS) % len(MARKERS)]


def _marked(values, training):
    """The points that get a marker: some of a validation curve, and those with a gap on both sides of any."""
    finite = np.concatenate([[False], np.isfinite(values), [False]])
    alone = finite[1:-1] & ~finite[:-2] & ~finite[2:]
    if not training:
        alone[::math.ceil(len(values) / MARKED_POINTS)] = True
    return [int(i) for i in np.flatnonzero(alone)]


def _legends(figure, series, columns, title):
    """Outside the panels, where they cover nothing: a colour for each run below, title and styles of line above."""
    runs = [Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=2.5, marker=_marker(i), markersize=4.5)
            for i in range(len(series))]
    names = [shortened(name, 32 * columns) for name in series]
    _legend(figure, runs, names, "outside lower center", max(1, (66 * columns) // (max(map(len, names)) + 8)))
    styles, meanings = [Line2D([], [], linewidth=1.9), Line2D([], [], linestyle=DASHES)], ["validation", "training"]
    if any(len({record.get("seed") for record in records}) > 1 for records in series.values()):
        styles.append(Line2D([], [], linewidth=8, alpha=0.25))
        meanings = ["validation, median of seeds", "training", "min to max"]
    for line in styles:
        line.set_color("#555555")
    above = _legend(figure, styles, meanings, "outside upper center" if title else "outside upper right", len(styles))
    if title:
        # A figure's own title would lie over the legend where the picture is one panel wide.
        above.set_title(shortened(title, 45 * columns), prop={"size": 12})
        above.get_title().set_parse_math(False)


def _legend(figure, handles, labels, place, columns):
    # Labelled with numbers first: a legend drops a label that starts with an underscore.
    legend = figure.legend(handles, [str(i) for i in range(len(labels))], loc=place, frameon=False, fontsize=9,
                           ncols=min(columns, len(labels)))
    for text, label in zip(legend.get_texts(), labels):
        text.set_parse_math(False)
        text.set_text(label)
    return legend


def shortened(text: object, most: int) -> str:
    """One line of at most `most` characters, an ellipsis where it was longer."""
    text = drawable(" ".join(str(text).split()))
    return text if len(text) <= most else text[:most - 1] + "…"


def _wrapped(title, width=19, lines=2):
    return "\n".join(textwrap.wrap(title, width, max_lines=lines, placeholder="…"))


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"font.family": choose_fonts(figure)}):
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def frame(panel: Axes) -> None:
    """The frame of every plot: a pale grid behind the lines, and axes at the left and the bottom only."""
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def learning_curve(curve: Any, path: AnyPath, factor: float = 2.0) -> Path:
    """Draws how accuracy grew with the images, and what more of them would bring, into one PNG; returns its path.

    Parameters
    ----------
    curve : finetune.learning_curve.Curve
    path : path-like
        Written whole or not at all.
    factor : float, default 2
        The forecast is for so many times as many images.
    """
    import numpy as np

    forecast, most = curve.forecast(factor), factor * curve.images
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(6, 4), dpi=DPI, layout="constrained")
        panel = figure.subplots()
        sizes = np.geomspace(curve.sizes[0], most, 100)
        panel.plot(sizes, 1 - curve.law.error(sizes), color=COLOURS[0], linestyle=DASHES, linewidth=1.4,
                   label="power law")
        for row in curve.errors:
            panel.plot(curve.sizes, 1 - row, color=COLOURS[0], alpha=0.3, linewidth=1)
        panel.plot(curve.sizes, 1 - curve.errors.mean(axis=0), color=COLOURS[0], marker="o", linewidth=1.9,
                   label="measured, on other images")
        panel.errorbar([most], [forecast.accuracy], [[forecast.accuracy - forecast.low],
                                                     [forecast.high - forecast.accuracy]], color=COLOURS[1], marker="D",
                       capsize=4, label=f"forecast for {factor:g} times the images")
        panel.axvline(curve.images, color="#777777", linestyle=":", linewidth=1.2, label="images now")
        panel.set_xscale("log")
        ticks = [round(size) for size in (*curve.sizes[::2], curve.images, most)]
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlabel("images")
        panel.set_ylabel("accuracy")
        panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        panel.legend(loc="lower right", frameon=False)
        return write_atomic(path, png(figure))

"""Charts of a report as SVG, drawn from the data, which the page's script shows by hover and by keys."""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import LogLocator, MaxNLocator

from gluon_ft.errors import escaped
from gluon_ft.reporting import plots

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 40  # margins
COLOURS = len(plots.COLOURS)  # as classes s0, s1, ... of report.css
MOST_ROWS = 60  # of the table of values below a chart


@dataclass
class Line:
    """A line of a chart.

    Attributes
    ----------
    name : str
    colour : int
        Number of the series.
    points : list of (float, float or None, str)
        x, y (None leaves a gap), and what is said of the point beside its value.
    dashed : bool
    dots : bool
        Whether the points are marked.
    band : (list of float, list of float)
        Lowest and highest value at each point, NaN in gaps; empty without a band.
    shares : list of float
        0 to 1 for each point, by which its mark is larger; empty where all are alike.
    """

    name: str
    colour: int
    points: list[tuple[float, float | None, str]]
    dashed: bool = False
    dots: bool = False
    band: tuple[Sequence[float], Sequence[float]] = ((), ())
    shares: Sequence[float] = ()


@dataclass
class Chart:
    """A drawn chart: its title, the SVG, and the values as a table.

    Attributes
    ----------
    title : str
    svg : Markup
    columns : list of str
    rows : list of list of str
        At most `MOST_ROWS`.
    """

    title: str
    svg: Markup
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Axis:
    """A range of values and the pixels that it is drawn to."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, whole: bool = False) -> list[float]:
        locator = LogLocator(subs=(1, 2, 5)) if self.log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole)
        slack = 1e-9 * (self.high - self.low)
        found = map(float, locator.tick_values(self.low, self.high))
        return [value for value in found if self.low - slack <= value <= self.high + slack]

    def described(self) -> dict:
        return {"low": self.low, "high": self.high, "start": self.start, "end": self.end, "log": self.log}


def curves(series: dict[str, list[dict]]) -> list[Chart]:
    """A chart for each metric that was logged, training dashed and validation solid; over several seeds the median.

    Parameters
    ----------
    series : dict of str to list of dict
        As in `plots.curves`.
    """
    charts = []
    for metric in plots.LABELS:
        lines = []
        for number, (name, records) in enumerate(series.items()):
            for part in ("train", "validation"):
                found = plots.median_and_range(records, f"{part}_{metric}")
                if found is not None:
                    lines.append(_curve(name, number, part, found, metric != "loss"))
        if lines:
            label = plots.short_label(metric)
            charts.append(_by_epoch(f"{label[0].upper()}{label[1:]} by epoch", lines, metric != "loss"))
    return charts


def _curve(name, number, part, found, share) -> Line:
    epochs, median, low, high, seeds = found
    points: list[tuple[float, float | None, str]] = []
    for epoch, value, least, most in zip(epochs, median, low, high):
        ends = f" ({_value(least, '', share)} to {_value(most, '', share)})" if seeds > 1 else ""
        points.append((int(epoch), None, "") if math.isnan(value) else (int(epoch), float(value), ends))
    training = part == "train"
    return Line(f"{name}, {'training' if training else 'validation'}", number, points, training,
                len(points) <= plots.MARKED_POINTS and not training, (low, high) if seeds > 1 else ((), ()))


def _by_epoch(title, lines, share) -> Chart:
    xs = [x for line in lines for x, _, _ in line.points]
    ys = np.array([y for line in lines for _, y, _ in line.points if y is not None]
                  + [v for line in lines for end in line.band for v in end if not math.isnan(v)] or [0.0])
    low, high = float(ys.min()), float(ys.max())
    log = not share and low > 0 and high > plots.LOG_RATIO * float(np.median(ys))
    if share:
        low = max(0.0, low - 0.05 * (1 - low) - 0.02)
        high = 1.0 if high > 0.7 else high + 0.05
    elif log:
        low, high = low / 1.2, high * 1.2
    else:
        low, high = 0.0 if 0 <= low < 0.5 * high else low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-9
    first, last = min(xs), max(xs)
    margin = 0.5 if first == last else 0.02 * (last - first)
    across = _Axis(first - margin, last + margin, LEFT, WIDTH - RIGHT)
    return _drawn(title, "epoch", lines, across, _Axis(low, high, HEIGHT - BOTTOM, TOP, log), share, True)


def reliability(title: str, measured: dict[str, list[dict]]) -> Chart:
    """How often predictions of about the same confidence are right.

    Parameters
    ----------
    title : str
    measured : dict of str to list of dict
        Name of the line -> bins as of `measures.reliability`.
    """
    lines = [Line(name, number, [(one["confidence"], one["accuracy"], f" right of {_images(one['images'])}")
                                 for one in bins], dashed=number > 0, dots=True,
                  shares=[one["images"] / sum(each["images"] for each in bins) for one in bins])
             for number, (name, bins) in enumerate(measured.items())]
    across = _Axis(0, 1, LEFT, WIDTH - RIGHT)
    return _drawn(title, "confidence (probability of the predicted class)", lines, across,
                  _Axis(0, 1, HEIGHT - BOTTOM, TOP), True, False, diagonal=True)


def _images(count) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def _drawn(title, label, lines, across, up, share, whole, diagonal=False) -> Chart:
    parts = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(v)}" y2="{up(v)}"/>'
             f'<text class="tick" x="{LEFT - 6}" y="{up(v) + 4}" text-anchor="end">{_tick(v, share)}</text>'
             for v in up.ticks()]
    parts += [f'<text class="tick" x="{across(v)}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
              f'{_tick(v, not whole)}</text>' for v in across.ticks(whole)]
    if diagonal:
        parts.append(f'<line class="diagonal" x1="{across(0)}" y1="{up(0)}" x2="{across(1)}" y2="{up(1)}"/>')
    for line in lines:
        parts += _shapes(line, across, up)
    parts.append(f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
                 f'{escape(label)}</text>')
    data = json.dumps({"x": across.described(), "y": up.described(), "share": share,
                       "unit": label if whole else "confidence", "percent": not whole, "lines": [
                           {"name": escaped(line.name), "colour": line.colour % COLOURS, "points": [
                               [round(x, 4), y if y is None else float(f"{y:.4g}"), words]
                               for x, y, words in line.points]} for line in lines]}, separators=(",", ":"))
    spoken = f"{title}. {len(lines)} line{'s' if len(lines) != 1 else ''}. " + " ".join(map(_last, lines[:4]))
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(escaped(spoken))}" ' \
          f'data-chart="{escape(data)}">{"".join(parts)}</svg>'
    return Chart(title, Markup(svg), *_table(label.split(" (")[0], lines, share, whole))


def _last(line) -> str:
    values = [y for _, y, _ in line.points if y is not None]
    return f"{line.name}: {_number(values[0])} first, {_number(values[-1])} last." if values else ""


def _shapes(line, across, up) -> list[str]:
    classes, series = f"s{line.colour % COLOURS}", f'data-series="{line.colour}"'
    found = []
    if len(line.band[0]):
        for run in _runs([(x, (low, high)) for (x, _, _), low, high in zip(line.points, *line.band)
                          if not math.isnan(low)]):
            corners = [f"{across(x)},{up(low)}" for x, (low, _) in run]
            corners += [f"{across(x)},{up(high)}" for x, (_, high) in reversed(run)]
            found.append(f'<polygon class="band {classes}" {series} points="{" ".join(corners)}"/>')
    runs = _runs([(x, y) for x, y, _ in line.points if y is not None], gaps=[x for x, y, _ in line.points if y is None])
    path = "".join("M" + "L".join(f"{across(x)} {up(y)}" for x, y in run) for run in runs if len(run) > 1)
    if path:
        found.append(f'<path class="line {classes}{" dashed" if line.dashed else ""}" {series} d="{path}"/>')
    marked = [point for run in runs for point in run if line.dots or len(run) == 1]
    sizes = [round(2.5 + 5.5 * math.sqrt(share), 1) for share in line.shares] or [3] * len(marked)
    found += [f'<circle class="dot {classes}" {series} cx="{across(x)}" cy="{up(y)}" r="{size}"/>'
              for (x, y), size in zip(marked, sizes)]
    return found


def _runs(points, gaps=()) -> list[list]:
    """The points between the gaps."""
    found: list[list] = [[]]
    for x, y in points:
        if found[-1] and any(found[-1][-1][0] < gap < x for gap in gaps):
            found.append([])
        found[-1].append((x, y))
    return [run for run in found if run]


def _table(label, lines, share, whole) -> tuple[list[str], list[list[str]]]:
    """The values for readers without the picture: a row an x where the lines share them, else one a line and x."""
    at = sorted({x for line in lines for x, _, _ in line.points})
    if whole and len(lines) <= 6:
        thinned = at[::math.ceil(len(at) / MOST_ROWS)]
        known = [{x: (y, words) for x, y, words in line.points} for line in lines]
        return [label, *(line.name for line in lines)], [
            [f"{x:g}", *(_value(*one.get(x, (None, "")), share) for one in known)] for x in thinned]
    rows = [[line.name, _number(x) if not whole else f"{x:g}", _value(y, words, share)] for line in lines
            for x, y, words in (line.points if not whole else line.points[-1:])]
    return ["line", label if not whole else f"last {label}", "value"], rows[:MOST_ROWS]


def _value(value, words, share) -> str:
    return "none" if value is None else (f"{100 * value:.1f}%" if share else _number(value)) + words


def _number(value) -> str:
    return f"{value:.4g}"


def _tick(value, share) -> str:
    return f"{100 * value:.4g}%" if share else f"{value:.4g}"

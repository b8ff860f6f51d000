"""report.html: the whole report in one file, from the .html, the .css and the scripts beside this module."""
from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from gluon_ft.errors import escaped
from gluon_ft.reporting.report import charts, thumbnails, words
from gluon_ft.reporting.report.evaluated import Story, suspects, view

MOST_PICTURE_BYTES = 900_000  # of the files that are shown, together
MOST_LEFT_OUT = 100  # images in the list of those that were not used


def render(title: str, rows: list[dict], summary: list[dict], pictures: list[thumbnails.Picture], config: dict,
           environment: dict, extra: dict | None = None, notes: list[str] | None = None,
           command: str | None = None, series: dict[str, list[dict]] | None = None, story: Story | None = None) -> str:
    """The report as one HTML page without any outside resource; every text in it is escaped.

    Parameters
    ----------
    title : str
        Of the page.
    rows, summary : list of dict
        The result, one row a network and seed, and `run.summarise` of it.
    pictures : list of Picture
        Shown smaller where they would make the page too large.
    config, environment : dict
        As in config.json and environment.json; nested keys are shown joined by dots, the home folder as `~`.
    extra : dict, optional
        Further results; None is left out.
    notes : list of str, optional
        Warnings, shown below the headline.
    command : str, optional
        What reproduces the run; default: the environment's.
    series : dict of str to list of dict, optional
        Histories to draw, as in `plots.curves`.
    story : Story, optional
        What a job tells of its images.
    """
    folder, story = Path(__file__).parent, story or Story()
    notes = [note for note in notes or [] if note not in story.facts]  # which stand among the data
    shown, left_out = thumbnails.within(pictures, MOST_PICTURE_BYTES)
    notes += [f"The picture {caption} is too large for this page; it is in the run's folder." for caption in left_out]
    found = {key: value for key, value in (extra or {}).items() if value is not None}
    script = "".join((folder / name).read_text(encoding="utf-8") for name in ("theme.js", "report.js"))
    engine = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True,
                                undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                finalize=_one_line)
    engine.filters.update(percent=words.percent, cell=words.cell, duration=words.duration)
    groups = dict(words.details(found))
    package = environment.get("gluon_ft", {})
    return engine.get_template("report.html").render(
        title=title, rows=rows, columns=list(dict.fromkeys(key for row in rows for key in row)), summary=summary,
        several=any(line["seeds"] > 1 for line in summary), best=_best(summary), notes=notes, samples=shown,
        charts=charts.curves(series or {}), names=list(series or {}), colours=charts.COLOURS, found=found,
        story=story, evaluated=None if story.evaluated is None else view(story.evaluated),
        suspects=None if story.judged is None else suspects(story.judged), left_out=story.left_out[:MOST_LEFT_OUT],
        reasons=groups.pop("Why", []), data=groups.pop("Data", []), details=list(groups.items()),
        config=words.flatten(config), environment=words.flatten(environment),
        date=words.readable(environment.get("date")), command=command or environment.get("command"),
        commit=package.get("commit"), dirty=package.get("dirty"), version=package.get("version"),
        script=Markup(script), allowed=allowed(script))


def _best(summary) -> dict | None:
    """The line with the highest validation accuracy."""
    measured = [line for line in summary if line["validation_median"] is not None]
    return max(measured, key=lambda line: line["validation_median"], default=None)


def allowed(script: str) -> str:
    """What a page's policy names to allow this script alone to run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _one_line(value: Any) -> Any:
    """Names as they are printed, without what would change the direction of the text behind them."""
    return escaped(value) if type(value) is str else value

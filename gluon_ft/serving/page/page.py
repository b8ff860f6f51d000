"""Renders the page, from page.html, page.css, page.js and what asks for the answers: served.js, or offline.js."""
from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

import gluon_ft
from gluon_ft.errors import escaped
from gluon_ft.reporting.report import page as report

if TYPE_CHECKING:
    from gluon_ft.serving.app import Limits
    from gluon_ft.serving.predictor import Predictor

_FOLDER = Path(__file__).parent
_REPORT = Path(report.__file__).parent  # whose colours and letters the page has
_MOST_NAMES = 300  # classes that are listed
MARK = '<meta name="generator" content="gluon_ft">'  # by which a page is recognised
OFFLINE = ("resize.js", "offline.js")  # of a page that works by itself


def served(title: str, predictor: Predictor, limits: Limits) -> str:
    """The page that asks the server for answers.

    Parameters
    ----------
    title : str
    predictor : Predictor
    limits : Limits
        Of a request.
    """
    lines = ["Send image files as a form; the answer is JSON, as gluon-ft predict --json says it.",
             "    curl -F image=@photo.jpg -F image=@other.jpg http://127.0.0.1:8000/predict",
             f"At most {limits.most_images} images and {limits.most_bytes / 1e6:g} MB a request. /openapi.json "
             "describes it; /healthz and /metrics are for those who run it."]
    return render(title, predictor.names, ["served.js"], promise="pictures are not kept",
                  state="JPEG, PNG, WebP and others", connect="'self'", details=[("For programs", lines)])


def render(title: str, names: Sequence[str], ways: Sequence[str], *, promise: str, state: str, connect: str,
           scripts: str = "", details: Sequence[tuple[str, Sequence[str]]] = (), about: Mapping[str, Any] | None = None,
           payloads: Sequence[tuple[str, str]] = (), before: str = "") -> str:
    """The whole page; every text in it is escaped.

    Parameters
    ----------
    title : str
    names : sequence of str
        Of the classes.
    ways : sequence of str
        Files of the scripts that answer.
    promise : str
        What becomes of the pictures.
    state : str
        What is said below the place to drop them.
    connect : str
        What the page's policy allows it to connect to.
    scripts : str, default ''
        What it allows scripts beside the page's own.
    details : sequence of (heading, lines)
        To be unfolded; lines that begin with four spaces are code.
    about : mapping, optional
        Plain values for the script.
    payloads : sequence of (id, text)
        Base64 for the script.
    before : str
        Script that goes before all others.
    """
    texts = [before, *(path.read_text(encoding="utf-8") for path in (
        _REPORT / "theme.js", *(_FOLDER / name for name in ways), _FOLDER / "page.js"))]
    script = "\n".join(texts)
    return _engine().get_template("page.html").render(
        title=escaped(title), names=list(map(escaped, names)), most=_MOST_NAMES, promise=promise, state=state,
        connect=Markup(connect), scripts=Markup(scripts), details=details, payloads=payloads,
        # Inside a script element only '<' could end it.
        about=Markup(json.dumps(about or {}).replace("<", "\\u003c")), script=Markup(script),
        allowed=report.allowed(script), mark=Markup(MARK), version=gluon_ft.__version__)


@functools.lru_cache(maxsize=1)
def _engine() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.FileSystemLoader([_FOLDER, _REPORT]), autoescape=True,
                              undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)

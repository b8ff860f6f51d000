"""Histories, rows of results and the pixels of pictures, and what is on a page, for the tests of reporting."""
from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser

import numpy as np
from PIL import Image

HOSTILE = "<script>alert('x')</script>&\"$_{"


def records(rate, epochs=4, seed=None, **extra):
    return [{"epoch": e, "train_loss": 1 / (1 + rate * e), "train_accuracy": 1 - 0.5 / (1 + rate * e),
             "validation_loss": 1.1 / (1 + rate * e), "validation_accuracy": 1 - 0.6 / (1 + rate * e),
             **({} if seed is None else {"seed": seed}), **extra} for e in range(1, epochs + 1)]


def row(name, seed, train, validation, **extra):
    return {"name": name, "seed": seed, "train_accuracy": train, "validation_accuracy": validation, **extra}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


class Page(HTMLParser):
    """Tables as lists of rows of cell texts (by id or class), images, outside links, charts' data, tags, text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.outside, self.tags, self.text = {}, [], [], set(), ""
        self.unnamed, self.charts, self.ids, self._script, self.policy = [], [], set(), "", ""
        self._row = self._cell = self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs, self._inside = dict(attrs), tag
        self.tags.add(tag)
        self.outside += [v for k, v in attrs.items()
                         if k in ("src", "href", "srcset") and not v.startswith(("data:", "#"))]
        self.ids.add(attrs.get("id"))
        name = "alt" if tag == "img" else "aria-label"
        self.unnamed += [tag] if tag in ("img", "svg", "canvas") and not attrs.get(name) else []
        self.policy = attrs["content"] if attrs.get("http-equiv") else self.policy
        if "data-chart" in attrs:
            self.charts.append(json.loads(attrs["data-chart"]))
        if tag in ("img", "source"):
            self.images.append(attrs.get("src") or attrs["srcset"])
        if tag == "table":
            self._rows = self.tables.setdefault(attrs.get("id") or attrs.get("class", "").split()[0], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        self._inside = None
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self._inside == "script":
            self._script += data
            return
        self.text += data
        if self._cell:
            self._rows[-1][-1] += data

    @property
    def policy_allows_its_script(self):
        """Whether the page's policy names the hash of its script, and no other source of scripts."""
        digest = base64.b64encode(hashlib.sha256(self._script.encode()).digest()).decode()
        return f"script-src 'sha256-{digest}'" in self.policy and self.policy.startswith("default-src 'none'")

"""How often a job reads each image: once for the audit, for all its hashes, to train on it, for its features, and for
the report's pictures."""
from __future__ import annotations

import os
import sys
from collections import Counter

import numpy as np
import photos
import pytest
from PIL import Image
from train_runs import TINY, quiet, source_fixture  # noqa: F401

from gluon_ft.data.sources.folders import scan
from gluon_ft.data.sources.opening import open_source
from gluon_ft.finetune import run
from gluon_ft.reporting import data_record

OPENED: Counter = Counter()
WATCHED: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _hook():
    """Counts each file that is opened below WATCHED; a hook of Python's stays until the process ends."""
    def count(event, arguments):
        if WATCHED and event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(WATCHED[0]):
            OPENED[arguments[0]] += 1

    sys.addaudithook(count)
    yield
    WATCHED.clear()


def watch(folder):
    OPENED.clear()
    WATCHED[:] = [os.path.join(os.path.realpath(folder), "")]


@pytest.mark.parametrize(("options", "most"), [({"strategy": "scratch", "pretrained": "none", "epochs": 3}, 7),
                                               ({"strategy": "svm"}, 6), ({"strategy": "head", "epochs": 2}, 7)])
def test_reads_of_an_image(tmp_path, options, most, source):
    """The probe, which looks at some images only, looks at all of these: their sizes, their pixels, their features."""
    folder = photos.make(tmp_path / "photos")
    watch(folder)
    run.train(folder, run=tmp_path / "run", say=quiet, **{**TINY, "pretrained": str(source), **options})
    assert len(OPENED) == sum(len(files) for _, _, files in os.walk(folder))
    assert max(OPENED.values()) <= most


def test_the_hashes_are_kept_until_a_file_changes(tmp_path):
    folder = photos.make(tmp_path / "photos")
    source = scan(folder)
    watch(folder)
    known = source.identity()
    described = data_record.describe({"train": source}, source.class_names, [])
    assert source.identity() == known == open_source(folder).identity()
    assert [row[2] for row in described["parts"]["train"]["files"]] == source.hashes()[0]
    assert set(OPENED.values()) == {2}  # once for each of the two sources
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(source.where(0))
    assert source.identity() == scan(folder).identity() != known

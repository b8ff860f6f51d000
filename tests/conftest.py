"""Shared test helpers: where the real data is, and the seeds."""
from __future__ import annotations

import gc
import importlib.metadata
import inspect
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

import gluon_ft  # noqa: F401  (prepares MXNet's import before any test module imports it)

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "tests" / "helpers"
SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_finish():
    """What was imported stays until the end: the collector, and the search for networks that have run, pass it by."""
    gc.collect()
    gc.freeze()


def shared_data(name: str) -> Path:
    """The folder or file `name` of the real data beside the project; skips the test where it is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"../shared/data/{name} is not present")
    return path


def cli_runner() -> CliRunner:
    """A runner whose results have standard error apart; click before 8.2 (the last for Python 3.9) wants to be told."""
    apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**apart)


@pytest.fixture(autouse=True)
def _seeded():
    import random

    import mxnet as mx
    import numpy as np

    random.seed(0)
    np.random.seed(0)
    mx.random.seed(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache; the processes of one run of the tests share theirs."""
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("GLUON_FT_HOME", str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "home"))


@pytest.fixture(autouse=True)
def _no_packages_of_weights(monkeypatch):
    """Installed packages of weights count only in tests that ask for `weights_packages`."""
    from gluon_ft.weights import packages

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distribution", missing)


@pytest.fixture
def weights_packages(monkeypatch, _no_packages_of_weights):
    """The packages of weights that are installed count."""
    from gluon_ft.weights import packages

    monkeypatch.setattr(packages, "distribution", importlib.metadata.distribution)

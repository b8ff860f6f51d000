"""A whole job: from a folder of photos to a fine-tuned, evaluated, saved and reported network.

The story: `advice.Facts` are measured by `probe`, `advice` makes a strategy and settings of them, `plan` decides what
was left open and builds the job, and `run` trains, evaluates and reports it. Names load when they are used, so that
the settings can be read without MXNet.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gluon_ft.finetune.run import Outcome, find_lr, train
    from gluon_ft.finetune.settings import JobSettings

_PLACES = {"JobSettings": "settings", "Outcome": "run", "find_lr": "run", "train": "run"}
__all__ = ["JobSettings", "Outcome", "find_lr", "train"]


def __getattr__(name):
    if name in _PLACES:
        return getattr(importlib.import_module(f"gluon_ft.finetune.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'gluon_ft.finetune' has no attribute '{name}'")


def __dir__():
    return sorted({*globals(), *__all__})

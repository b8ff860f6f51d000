"""Fine-tuning suite for MXNet/Gluon: the public names and nothing else."""
from gluon_ft import _compat  # noqa: F401  isort: skip  (before anything that imports MXNet)
import importlib

import mxnet as mx

from gluon_ft import backbones, errors, freezing, heads, symbolic
from gluon_ft.data import loaders
from gluon_ft.data.augment import Augmentation
from gluon_ft.data.batches import ArrayLoader, Batch
from gluon_ft.data.preprocessing import Preprocessing
from gluon_ft.errors import UserError
from gluon_ft.freezing import Group, apply_groups, describe, freeze, freeze_stages, unfreeze
from gluon_ft.heads import append_output, fine_tune_net, replace_output
from gluon_ft.stages import stages
from gluon_ft.symbolic import get_fine_tune_model
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.devices import contexts
from gluon_ft.training.fit import fit
from gluon_ft.training.metrics import evaluate
from gluon_ft.training.seeds import seed_all
from gluon_ft.weights.class_names import select_classes
from gluon_ft.weights.pretrained import pretrained_net

__version__ = "0.1.0"
# Imported when they are first asked for: they bring matplotlib, scikit-learn and jinja2 along.
_LATER = {"advise": "advice", "cross_validate": "training.cross_validation", "find_lr": "training.find_lr",
          "load_model": "evaluation.model", "output_from_classes": "class_rows", "predict": "evaluation.predict",
          "save_model": "evaluation.model"}
_PACKAGES = ("evaluation", "finetune", "reporting")
__all__ = [
    "ArrayLoader", "Augmentation", "Batch", "Group", "Preprocessing", "TrainConfig", "UserError", "__version__",
    "advise", "append_output", "apply_groups", "backbones", "contexts", "cross_validate", "describe", "errors",
    "evaluate", "evaluation", "find_lr", "fine_tune_net", "finetune", "fit", "freeze", "freeze_stages", "freezing",
    "get_fine_tune_model", "heads", "load_model", "loaders", "mx", "output_from_classes", "predict", "pretrained_net",
    "replace_output", "reporting", "save_model", "seed_all", "select_classes", "stages", "symbolic", "unfreeze",
]


def __getattr__(name):
    if name in _PACKAGES:
        return importlib.import_module(f"gluon_ft.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(f"gluon_ft.{_LATER[name]}"), name)
    raise AttributeError(f"module 'gluon_ft' has no attribute '{name}'")

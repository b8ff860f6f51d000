"""Fine-tuning suite for MXNet/Gluon: the public names and nothing else.

Each name is imported when it is first used: `import gluon_ft` by itself loads neither MXNet nor scikit-learn, but lets
a later `import mxnet` work on current Python and NumPy.
"""
from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

from gluon_ft import errors
from gluon_ft.errors import UserError
from gluon_ft.runtime import mxnet_import  # noqa: F401  (prepares every import of MXNet and GluonCV after this)

if TYPE_CHECKING:
    from gluon_ft import evaluation, finetune, reporting, symbolic
    from gluon_ft.data import lists, split
    from gluon_ft.data import loader as loaders
    from gluon_ft.data.audit.checks import audit
    from gluon_ft.data.batches import ArrayLoader, Batch
    from gluon_ft.data.datasets import catalog as datasets
    from gluon_ft.data.datasets import digits
    from gluon_ft.data.images.augment import Augmentation
    from gluon_ft.data.images.preprocessing import Preprocessing
    from gluon_ft.data.records.pack import pack
    from gluon_ft.evaluation import folds, linear
    from gluon_ft.evaluation import task as tasks
    from gluon_ft.evaluation.evaluate import evaluate_model
    from gluon_ft.evaluation.features import penultimate
    from gluon_ft.evaluation.folds import cross_validate
    from gluon_ft.evaluation.model import save_model
    from gluon_ft.evaluation.predict import predict
    from gluon_ft.evaluation.trained import load_model
    from gluon_ft.export.folder import export_model
    from gluon_ft.export.page import export_page
    from gluon_ft.finetune import demo_weights
    from gluon_ft.finetune.advice import advise
    from gluon_ft.models import freezing, heads
    from gluon_ft.models import registry as backbones
    from gluon_ft.models.class_init import output_from_classes, select_classes
    from gluon_ft.models.freezing import Group, apply_groups, describe, freeze, freeze_stages, unfreeze
    from gluon_ft.models.heads import append_output, fine_tune_net, replace_output
    from gluon_ft.models.pretrained import pretrained_net
    from gluon_ft.models.stages import stages
    from gluon_ft.reporting import Run, summarise
    from gluon_ft.runtime.devices import contexts
    from gluon_ft.runtime.seeds import seed_all
    from gluon_ft.symbolic import get_fine_tune_model
    from gluon_ft.training import lr_finder
    from gluon_ft.training.config import TrainConfig
    from gluon_ft.training.fit import fit
    from gluon_ft.training.lr_finder import find_lr
    from gluon_ft.training.metrics import evaluate

__version__ = "1.0.0"

# Public name -> the module that it is an attribute of, or, with a trailing dot, the module that it is.
_PLACES = {
    "ArrayLoader": "data.batches", "Augmentation": "data.images.augment", "Batch": "data.batches",
    "Group": "models.freezing", "Preprocessing": "data.images.preprocessing", "Run": "reporting",
    "TrainConfig": "training.config", "advise": "finetune.advice", "append_output": "models.heads",
    "apply_groups": "models.freezing", "audit": "data.audit.checks", "backbones": "models.registry.",
    "contexts": "runtime.devices", "cross_validate": "evaluation.folds", "datasets": "data.datasets.catalog.",
    "demo_weights": "finetune.demo_weights.", "describe": "models.freezing", "digits": "data.datasets.digits.",
    "evaluate": "training.metrics", "evaluate_model": "evaluation.evaluate", "evaluation": "evaluation.",
    "export_model": "export.folder", "export_page": "export.page", "find_lr": "training.lr_finder",
    "fine_tune_net": "models.heads",
    "finetune": "finetune.",
    "fit": "training.fit", "folds": "evaluation.folds.", "freeze": "models.freezing",
    "freeze_stages": "models.freezing", "freezing": "models.freezing.", "get_fine_tune_model": "symbolic",
    "heads": "models.heads.", "linear": "evaluation.linear.", "lists": "data.lists.",
    "load_model": "evaluation.trained", "loaders": "data.loader.", "lr_finder": "training.lr_finder.",
    "output_from_classes": "models.class_init", "pack": "data.records.pack", "penultimate": "evaluation.features",
    "predict": "evaluation.predict", "pretrained_net": "models.pretrained", "replace_output": "models.heads",
    "reporting": "reporting.", "save_model": "evaluation.model", "seed_all": "runtime.seeds",
    "select_classes": "models.class_init", "split": "data.split.", "stages": "models.stages",
    "summarise": "reporting", "symbolic": "symbolic.", "tasks": "evaluation.task.", "unfreeze": "models.freezing",
}
__all__ = [
    "ArrayLoader", "Augmentation", "Batch", "Group", "Preprocessing", "Run", "TrainConfig", "UserError",
    "__version__", "advise", "append_output", "apply_groups", "audit", "backbones", "contexts", "cross_validate",
    "datasets", "demo_weights", "describe", "digits", "errors", "evaluate", "evaluate_model", "evaluation",
    "export_model", "export_page", "find_lr", "fine_tune_net", "finetune", "fit", "folds", "freeze", "freeze_stages",
    "freezing", "get_fine_tune_model", "heads", "linear", "lists", "load_model", "loaders", "lr_finder",
    "output_from_classes",
    "pack", "penultimate", "predict", "pretrained_net", "replace_output", "reporting", "save_model", "seed_all",
    "select_classes", "split", "stages", "summarise", "symbolic", "tasks", "unfreeze",
]


def __getattr__(name):
    if name in _PLACES:
        module = importlib.import_module(f"gluon_ft.{_PLACES[name].rstrip('.')}")
        value = module if _PLACES[name].endswith(".") else getattr(module, name)
        globals()[name] = value
        return value
    if name == "mx":
        warnings.warn("gluon_ft.mx will go: write `import mxnet as mx` after `import gluon_ft`", DeprecationWarning,
                      stacklevel=2)
        return importlib.import_module("mxnet")
    raise AttributeError(f"module 'gluon_ft' has no attribute '{name}'")


def __dir__():
    return sorted({*globals(), *__all__})

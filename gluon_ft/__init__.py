"""Fine-tuning suite for MXNet/Gluon: the public names and nothing else."""
from gluon_ft import _compat  # noqa: F401  isort: skip  (before anything that imports MXNet)
from gluon_ft import errors
from gluon_ft.errors import UserError

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "errors"]

"""Fine-tuning of symbols: `get_fine_tune_model`, training with `mx.mod.Module`, and conversion to and from Gluon."""
from gluon_ft.symbolic.bridge import fine_tune_block, parameter_names, to_gluon, to_symbol
from gluon_ft.symbolic.head import get_fine_tune_model
from gluon_ft.symbolic.iterators import LoaderIter
from gluon_ft.symbolic.legacy import load_checkpoint, load_symbol
from gluon_ft.symbolic.module_fit import AS_PUBLISHED, SymbolicResult, evaluate, fit
from gluon_ft.symbolic.sources import Source, find_source

__all__ = ["AS_PUBLISHED", "LoaderIter", "Source", "SymbolicResult", "evaluate", "find_source", "fine_tune_block",
           "fit", "get_fine_tune_model", "load_checkpoint", "load_symbol", "parameter_names", "to_gluon", "to_symbol"]

"""What is compared before the first batch: parameters with the symbol, labels and class names with its output."""
from __future__ import annotations

import contextlib
import io

import mxnet as mx

from gluon_ft.data.sources.base import describe_classes
from gluon_ft.errors import DataError, NetworkError, WeightsError, last_line
from gluon_ft.symbolic.legacy import check_aux
from gluon_ft.training.labels import LabelCheck


def check_parameters(symbol, arg_params, aux_params, inputs: dict[str, tuple], may_miss=()) -> int:
    """Compares parameters and running statistics with the shapes that the symbol infers; returns the classes.

    inputs : shapes of data and labels by name, batch first; may_miss : parameters that will be initialised.
    Raises NetworkError where the input does not fit, WeightsError for what is missing or of another shape.
    """
    own = [name for name in symbol.list_arguments() if name not in inputs]
    missing = [name for name in own if name not in arg_params and name not in may_miss]
    if missing:
        raise WeightsError(f"{len(missing)} of the symbol's {len(own)} parameters are missing",
                           found=f"no '{missing[0]}'", remedy="give the parameters of this symbol; only those of the "
                           f"new layer{' (' + ', '.join(may_miss) + ')' if may_miss else ''} are initialised")
    check_aux(symbol, aux_params)
    wanted = _shapes(symbol, inputs, arg_params)
    for name, shape in wanted.items():
        found = arg_params.get(name, aux_params.get(name))
        if found is not None and found.shape != shape:
            raise WeightsError(f"parameter '{name}' is another network's", expected=shape, found=found.shape,
                               remedy="give the parameters of this symbol, and images of the size it is for")
    return _classes(symbol, inputs)


def _shapes(symbol, inputs, arg_params):
    # MXNet prints the arguments of a failed inference to standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            arguments, _, auxiliary = symbol.infer_shape(**inputs)
        except mx.MXNetError as error:
            raise NetworkError(f"the symbol does not take this input: {last_line(error)[:200]}",
                               found=", ".join(f"{k} {v}" for k, v in inputs.items())) from error
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    return {name: tuple(shape) for name, shape in zip(names, [*arguments, *auxiliary]) if name not in inputs}


def _classes(symbol, inputs) -> int:
    shape = symbol.infer_shape(**inputs)[1][0]
    if len(shape) != 2:
        raise NetworkError("the symbol's result is not one row of classes an image", found=shape)
    return shape[1]


def labels_fit(classes: int, source, what: str, allow_empty: bool = True) -> LabelCheck:
    """Compares the labels of a source with the head, see `LabelCheck`."""
    return LabelCheck(classes, source, what, allow_empty, growing="call get_fine_tune_model with num_classes=N")


def class_names(classes: int, train, val, wanted=None) -> list[str] | None:
    """The class names that sources carry, in label order; None where none does.

    wanted : those of a checkpoint. Raises DataError where they differ from one another or from the number of classes.
    """
    found = [(what, list(source.classes)) for what, source in (("training", train), ("validation", val))
             if getattr(source, "classes", None)]
    if wanted is not None:
        found.insert(0, ("checkpoint", list(wanted)))
    for what, names in found[1:]:
        if names != found[0][1]:
            raise DataError(f"the classes of {what} and {found[0][0]} differ", expected=describe_classes(found[0][1]),
                            found=describe_classes(names), remedy="take data and network of the same task")
    if found and len(found[0][1]) != classes:
        raise DataError(f"the classes of {found[0][0]} do not fit the head", expected=f"{classes} classes",
                        found=describe_classes(found[0][1]),
                        remedy=f"call get_fine_tune_model with num_classes={len(found[0][1])}")
    return found[0][1] if found else None

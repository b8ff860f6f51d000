"""Reads symbols and checkpoints, including files of 2015 to 2017; errors say which file is wrong and why."""
from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import mxnet as mx

from gluon_ft.errors import NetworkError, WeightsError, last_line, near, printable
from gluon_ft.io import documents
from gluon_ft.models import graph
from gluon_ft.weights.readers.tensor_files import check_finite, read_tensors

Parameters = dict[str, mx.nd.NDArray]


def load_symbol(path: str | Path) -> mx.sym.Symbol:
    """Reads a symbol from a JSON file of any version of MXNet up to 1.9.1.

    Old files have `param` or `attr` in place of `attrs`, no variables for BatchNorm's running statistics, and no
    shapes; MXNet upgrades them on reading. Options that they leave out have their old defaults: `fix_gamma` true, `eps`
    1e-3, `momentum` 0.9. Raises NetworkError if the file is missing or is not a symbol.
    """
    path = Path(path)
    try:
        return _upgraded_names(graph.from_json(documents.read_bytes(path, graph.MOST_BYTES)))
    except OSError as error:
        raise NetworkError("the symbol cannot be read", path=path, found=error.strerror or error,
                           remedy=_similar_files(path)) from error
    except ValueError as error:
        raise NetworkError("not a symbol", path=path, expected="MXNet's JSON with 'nodes'",
                           found=printable(str(error), 160)) from error
    except mx.MXNetError as error:
        raise NetworkError("MXNet does not accept the symbol", path=path, found=last_line(error)[:200]) from error


def _upgraded_names(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Renames the operator 'Softmax' of 2015 to 'SoftmaxOutput', its present name."""
    if not any(node.op == "Softmax" for node in graph.nodes(symbol)):
        return symbol
    return graph.edited(symbol, lambda node: node.update(op="SoftmaxOutput") if node["op"] == "Softmax" else None)


def load_checkpoint(prefix: str | Path, epoch: int) -> tuple[mx.sym.Symbol, Parameters, Parameters]:
    """`mx.model.load_checkpoint` with checks. Returns (symbol, arg_params, aux_params).

    Reads `<prefix>-symbol.json` and `<prefix>-<epoch as 4 digits>.params`. Raises NetworkError for the symbol, and
    WeightsError for parameters that are missing (the error gives similar files), damaged, saved by Gluon, or without
    the symbol's running statistics.
    """
    symbol = load_symbol(Path(f"{prefix}-symbol.json"))
    arg_params, aux_params = load_params(prefix, epoch)
    check_aux(symbol, aux_params, parameter_file(prefix, epoch))
    return symbol, arg_params, aux_params


def load_params(prefix: str | Path, epoch: int) -> tuple[Parameters, Parameters]:
    """Reads (arg_params, aux_params) from `<prefix>-<epoch as 4 digits>.params`; see `load_checkpoint`."""
    path = parameter_file(prefix, epoch)
    if not path.is_file():
        raise WeightsError("no such checkpoint", path=path, remedy=_similar_files(path))
    return split_params(path)


def split_params(path: str | Path) -> tuple[Parameters, Parameters]:
    """Reads (arg_params, aux_params) from a parameter file, in which names begin with 'arg:' and 'aux:'.

    Raises WeightsError if it is another kind of file, is damaged, or has values that are not finite.
    """
    found = read_tensors(path)
    # `read_tensors` removes these prefixes; a file without any was saved by Gluon or another framework.
    if found.format != "mxnet params" or not (found.auxiliary or _has_prefixes(path)):
        raise WeightsError("not the parameters of a symbol", path=path, expected="names that begin with arg: and aux:",
                           found=f"{found.format}, with names like '{next(iter(found.tensors), '')}'",
                           remedy="load them with Gluon, or convert the network with gluon_ft.symbolic.to_symbol")
    check_finite(found.tensors, path)
    arrays = {name: mx.nd.array(value, dtype=value.dtype) for name, value in found.tensors.items()}
    auxiliary = set(found.auxiliary)
    return ({n: a for n, a in arrays.items() if n not in auxiliary}, {n: arrays[n] for n in found.auxiliary})


def _has_prefixes(path):
    with open(path, "rb") as file:
        # The names are at the end of the file, after the arrays.
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 22)))
        tail = file.read()
    return b"arg:" in tail or b"aux:" in tail


def parameter_file(prefix: str | Path, epoch: int) -> Path:
    """MXNet's name of a checkpoint's parameter file: `<prefix>-<epoch as 4 digits>.params`."""
    return Path(f"{prefix}-{epoch:04d}.params")


def check_aux(symbol: mx.sym.Symbol, aux_params: Container[str], path: str | Path | None = None) -> None:
    """Checks that no running statistics of a symbol are missing.

    Parameters
    ----------
    symbol : mx.sym.Symbol
    aux_params : container of str
        Names of the statistics, or the dict with them.
    path : path-like, optional
        The parameter file, for the error.

    Raises
    ------
    WeightsError
        Running statistics are missing.
    """
    missing = [name for name in symbol.list_auxiliary_states() if name not in aux_params]
    if missing:
        raise WeightsError(f"{len(missing)} auxiliary states (BatchNorm's running statistics) are missing", path=path,
                           found=f"no '{missing[0]}'", remedy="load them from the checkpoint that the parameters are "
                                                              "from; they cannot be made up")


def _similar_files(path):
    """Names similar files in the same folder, as the remedy of an error."""
    kind = "*-symbol.json" if path.name.endswith(".json") else "*.params"
    known = [p.name for p in path.parent.glob(kind)] if path.parent.is_dir() else []
    return near(path.name, known) if known else f"no {kind} in {path.parent}"

"""Plain functions for the private attributes of MXNet's Gluon and Module that the package needs.

Gluon has no public way to exchange a layer, to ask whether a parameter has a value, or to drop a cached graph. Written
for MXNet 1.9.1, the last release. Nothing else in the package uses these attributes.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, HybridBlock, Parameter, Trainer

# ---------------------------------------------------------------------------------------------------------- blocks


def children(block: Block) -> dict[str, Block]:
    """The direct children of a block, by name; Gluon's own mapping, not a copy."""
    return block._children


def exchange_child(parent: Block, key: str, new: Block) -> None:
    """Replaces a child of a block, also in every attribute of the parent that refers to it.

    Parameters
    ----------
    parent : Block
    key : str
        The child's name in `children(parent)`.
    new : Block
    """
    old = parent._children[key]
    for name in [name for name, value in vars(parent).items() if value is old]:
        setattr(parent, name, new)
    parent._children[key] = new


@contextlib.contextmanager
def without_children(block: Block) -> Iterator[None]:
    """Inside the `with`, `block` has no children, so that what is done to it is not done to them."""
    kept, block._children = block._children, type(block._children)()
    try:
        yield
    finally:
        block._children = kept


def parameters_by_path(block: Block, prefix: str = "") -> dict[str, Parameter]:
    """All parameters in a block, by path ('features.0.weight'): the names of `save_parameters`."""
    return block._collect_params_with_prefix(prefix)


def own_parameters(block: Block) -> dict[str, Parameter]:
    """The parameters of a block itself, without its children's, by attribute ('weight')."""
    return block._reg_params


def hyperparameters(layer: Block) -> dict[str, Any]:
    """The arguments of the operator that a layer runs; Gluon's own mapping, not a copy.

    A change takes effect when the layer is traced again, see `clear_cached_graph`.
    """
    return layer._kwargs


def is_dense_or_convolution(block: Block) -> bool:
    """Whether a block is a Dense layer or a convolution: it has units or channels of its own."""
    return hasattr(block, "_units") or hasattr(block, "_channels")


def is_dense(block: Block) -> bool:
    """Whether a block is a Dense layer."""
    return hasattr(block, "_units")


def flattens(dense: Block) -> bool:
    """Whether a Dense layer flattens its input."""
    return dense._flatten


# -------------------------------------------------------------------------------------------------- hybridisation


def is_hybridised(block: HybridBlock) -> bool:
    """Whether a block is hybridised now."""
    return block._active


def hybridise_flags(block: HybridBlock) -> dict[str, Any]:
    """The keyword arguments that were given to `hybridize`."""
    return dict(block._flags)


def has_cached_graph(block: HybridBlock) -> bool:
    """Whether a block has been traced since it was made or changed."""
    return bool(getattr(block, "_cached_graph", None))


def cached_symbol(block: HybridBlock) -> mx.sym.Symbol:
    """The graph that a hybridised block, or a SymbolBlock, runs."""
    return block._cached_graph[1]


def clear_cached_graph(block: HybridBlock) -> None:
    """Drops a block's graph and the memory of its intermediate results; the next call traces it again."""
    block._clear_cached_op()


# ----------------------------------------------------------------------------------------------------- parameters


def is_initialised(parameter: Parameter) -> bool:
    """Whether a parameter has a value."""
    return parameter._data is not None


def is_deferred(parameter: Parameter) -> bool:
    """Whether a parameter gets its value in the first forward pass, when its shape becomes known."""
    return bool(parameter._deferred_init)


def contexts_of(parameter: Parameter) -> list[mx.Context] | None:
    """The contexts of a parameter, or those it will have once its shape is known; None if it is not initialised."""
    if parameter._data is not None:
        return parameter.list_ctx()
    return list(parameter._deferred_init[1]) if parameter._deferred_init else None


def settle() -> None:
    """Waits until MXNet has finished everything, so that parameters can be read.

    On CPU the first forward pass of a convolution adds, while it runs, a task that brings the weight into oneDNN's
    layout. `asnumpy()` waits only for the tasks that existed when it was called, so it may return a weight that is half
    in the other layout. Whatever reads parameters into NumPy or a file therefore uses one of the functions below.
    """
    mx.nd.waitall()


def values_of(parameter: Parameter) -> list[mx.nd.NDArray]:
    """A parameter's values, one per device, once everything that changes them is done: to be read."""
    settle()
    return parameter.list_data()


def array_of(parameter: Parameter) -> np.ndarray:
    """A parameter's value on its first device as a NumPy array, once everything that changes it is done."""
    return values_of(parameter)[0].asnumpy()


def averaged(parameter: Parameter) -> mx.nd.NDArray:
    """A copy of a parameter's value on the CPU; with several devices, their mean."""
    settle()
    return parameter._reduce()


def write_parameters(block: Block, path: str) -> None:
    """`Block.save_parameters`, once everything that changes the parameters is done."""
    settle()
    block.save_parameters(path)


def mark_gradients(parameter: Parameter) -> None:
    """Tells a trainer that the gradients on all devices are new, where something else than autograd has made them."""
    for array in parameter.list_data():
        array._fresh_grad = True


def device_arrays(parameter: Parameter) -> list[mx.nd.NDArray]:
    """A parameter's own arrays, one per device, for MXNet's operators, which run in order anyway.

    What goes to NumPy or a file comes from `values_of`.
    """
    return parameter.list_data()


def all_finite(arrays: Sequence[mx.nd.NDArray]) -> bool:
    """Whether the arrays, of one device and type, hold neither NaN nor infinity; computed on the device."""
    flag = mx.nd.ones((1,), ctx=arrays[0].context)
    # MXNet's operator has room for 200 arrays, and writes beyond its memory for more.
    for begin in range(0, len(arrays), 200):
        part = arrays[begin:begin + 200]
        mx.nd.multi_all_finite(*part, num_arrays=len(part), init_output=False, out=flag)
    return bool(flag.asscalar())


def first_not_finite(arrays: Mapping[str, mx.nd.NDArray]) -> str | None:
    """The name of the first array that holds NaN or infinity, None where there is none; computed on their devices."""
    kinds: dict = {}
    for name, array in arrays.items():
        if np.dtype(array.dtype).kind == "f":
            kinds.setdefault((array.context, np.dtype(array.dtype)), {})[name] = array
    for group in kinds.values():
        if not all_finite([*group.values()]):
            return next(name for name, array in group.items() if not mx.nd.all_finite(array).asscalar())
    return None


def set_array(parameter: Parameter, value: mx.nd.NDArray | np.ndarray, ctx: mx.Context | list[mx.Context]) -> None:
    """Sets a parameter's value, whether it is initialised or not, as `Block.load_parameters` does.

    Parameters
    ----------
    parameter : gluon.Parameter
    value : NDArray or ndarray
        It is cast to the parameter's type.
    ctx : mx.Context or list of them
        Devices that get a copy.

    Raises
    ------
    AssertionError
        The shapes differ.
    """
    value = value if isinstance(value, mx.nd.NDArray) else mx.nd.array(value)
    parameter._load_init(value, ctx, cast_dtype=True)


def is_differentiable(parameter: Parameter) -> bool:
    """Whether a parameter can have a gradient; running statistics, which change without one, cannot."""
    return parameter._differentiable


def trainer_attribute() -> str:
    """The name of the attribute in which a parameter keeps the Trainer that it belongs to."""
    return "_trainer"


def gradients(parameter: Parameter) -> list[mx.nd.NDArray] | None:
    """A parameter's gradients, one per device; None where it has none."""
    return parameter._grad


def deferred_state(parameter: Parameter) -> tuple[Any, Any]:
    """How a parameter without a value will get one, for `restore_deferred`."""
    return parameter._deferred_init, parameter._shape


def restore_deferred(parameter: Parameter, state: tuple[Any, Any]) -> None:
    """Removes a parameter's value again, so that it is as it was when `deferred_state` was called."""
    parameter._data = parameter._grad = None
    parameter._deferred_init, parameter._shape = state


# ----------------------------------------------------------------------------------------------------------- data


def drawn_by(loader: mx.gluon.data.DataLoader) -> tuple[int | None, str]:
    """(images that a DataLoader draws in a pass, its `last_batch`); (None, '') with a custom batch sampler."""
    batches = loader._batch_sampler
    if not isinstance(batches, mx.gluon.data.BatchSampler):
        return None, ""
    return len(batches._sampler), batches._last_batch


# ------------------------------------------------------------------------------------------------------- training


def updaters(trainer: Trainer) -> list[Any]:
    """A Trainer's updaters, one per device, which hold the optimiser's state."""
    return trainer._updaters


def trained_parameters(trainer: Trainer) -> list[Parameter]:
    """A Trainer's parameters, in the order of its indices."""
    return trainer._params


def update_counts(trainer: Trainer) -> Mapping[int, int]:
    """Index of a parameter in the Trainer -> number of its updates, on the first device (all devices agree)."""
    return trainer._optimizer._all_index_update_counts.get(0, {})


def set_update_counts(trainer: Trainer, counts: Mapping[int, int]) -> None:
    """Sets the numbers of updates, as `update_counts` returned them, on every device."""
    optimizer = trainer._optimizer
    optimizer.begin_num_update = 0
    optimizer._all_index_update_counts = {number: dict(counts) for number in range(len(trainer._updaters))}
    optimizer._index_update_count = optimizer._all_index_update_counts[0]


def rates_of(optimizer: mx.optimizer.Optimizer, key: int | str) -> tuple[float, float]:
    """The learning rate and the weight decay that an optimiser uses for a parameter, multipliers included."""
    return optimizer._get_lrs([key])[0], optimizer._get_wds([key])[0]


# --------------------------------------------------------------------------------------------------------- Module


def updates_on_kvstore(module: mx.mod.Module) -> bool:
    """Whether a module's KVStore updates the parameters."""
    return bool(module._update_on_kvstore)


def module_updater(module: mx.mod.Module) -> Any:
    """The updater that holds a module's optimiser state: its KVStore's, or its own."""
    return module._kvstore._updater if module._update_on_kvstore else module._updater


def module_arrays(module: mx.mod.Module) -> dict[str, tuple[list[mx.nd.NDArray], list[mx.nd.NDArray]]]:
    """Name of each trained parameter of a bound module -> its arrays and its gradients, one per device."""
    group = module._exec_group
    return {name: (weights, found) for name, weights, found in
            zip(group.param_names, group.param_arrays, group.grad_arrays) if found[0] is not None}


def parameters_have_moved(module: mx.mod.Module) -> None:
    """Tells a module that the parameters on its devices are no longer those that it has on the CPU."""
    module._params_dirty = True


def module_parameters(module: mx.mod.Module) -> list[str]:
    """Names of a bound module's parameters, in the order of the updater's keys."""
    return module._exec_group.param_names

"""Exponential moving average of a network's parameters and running statistics, to evaluate and save instead of them."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mxnet as mx
import numpy as np
from mxnet.gluon import Block

from gluon_ft.errors import CheckpointError, ConfigError, NetworkError
from gluon_ft.runtime.gluon_internals import (
    device_arrays,
    is_differentiable,
    is_initialised,
    parameters_by_path,
    values_of,
)

COUNT = "#updates"  # not a parameter's path, since these have no '#'


class Average:
    """The average of all parameters over the steps, later ones counting more.

    The mean of the weights of SGD's steps is nearer to the optimum than the last of them (Polyak and Juditsky, 1992).
    After each step

        average = decay * average + (1 - decay) * parameter

    beginning with the parameters as they are. The decay itself rises: at the n-th update (from 0) it is
    min(decay, (1 + n) / (10 + n)), which is TensorFlow's rule for `ExponentialMovingAverage(num_updates=...)`. Without
    it an average over 1 / (1 - decay) steps would in a fine-tuning run of a few hundred steps still hold much of the
    new output's random initial weights.

    Parameters
    ----------
    net : Block
        Initialised. Parameters whose shape is not known yet are averaged from the first update on.
    decay : float
        0 to below 1; 0.99 to 0.9999 are usual, about 1 - 10 / (number of steps).

    There is one average, on the network's first device and in float32 at least; of running statistics, which differ
    between devices, it is that of their mean. Raises ConfigError for a decay out of its range.
    """

    def __init__(self, net: Block, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ConfigError("decay of the average out of range", expected="0 to below 1", found=decay)
        self.decay, self.updates = float(decay), 0
        self._parameters = parameters_by_path(net)
        self._averages: dict[str, mx.nd.NDArray] = {}
        # Frozen parameters need no arithmetic, until they are set free.
        self._moving: set[str] = set()
        for path, parameter in self._parameters.items():
            if is_initialised(parameter):
                self._averages[path] = _value(parameter).copy()

    def update(self) -> None:
        """Takes in the parameters as they are after a step. Nothing waits for the device."""
        rate = 1 - self.current_decay
        for path, parameter in self._parameters.items():
            if path not in self._averages:
                self._averages[path] = _value(parameter).copy()
            elif self._moves(path, parameter):
                average = self._averages[path]
                # As a difference: what stands still stays equal to its average, bit for bit.
                average += rate * (_value(parameter) - average)
        self.updates += 1

    @property
    def current_decay(self) -> float:
        """The decay that the next update uses."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the network has the averages; afterwards its own values again, bit for bit, on each device.

        Values are exchanged in place, so that hybridised networks see them; a compiled copy of the network does not.
        """
        own = {path: [array.copy() for array in values_of(self._parameters[path])] for path in self._averages}
        try:
            self._put(self._parameters)
            yield
        finally:
            for path, values in own.items():
                for array, value in zip(device_arrays(self._parameters[path]), values):
                    value.copyto(array)

    def copy_to(self, net: Block) -> None:
        """Gives the averages to a network of the same parameters, for good. NetworkError where they differ."""
        parameters = parameters_by_path(net)
        for path, average in self._averages.items():
            if path not in parameters or tuple(parameters[path].shape) != average.shape:
                raise NetworkError("the average belongs to another network", expected=f"'{path}' of {average.shape}",
                                   found=parameters[path].shape if path in parameters else "no such parameter")
        self._put(parameters)

    def arrays(self) -> dict[str, mx.nd.NDArray]:
        """What a checkpoint keeps: path -> average, and the number of updates under '#updates' (int64, (1,)).

        The arrays themselves and no copies: save them before the next update.
        """
        return {**self._averages, COUNT: mx.nd.array([self.updates], dtype="int64")}

    def restore(self, arrays: dict[str, mx.nd.NDArray]) -> None:
        """Takes over what `arrays` returned. CheckpointError where it is of another network; then nothing changed."""
        found = {path: array for path, array in arrays.items() if path != COUNT}
        for path in [*found, *self._parameters]:
            known = self._parameters.get(path)
            if known is None or path not in found or not _fits(known, found[path]):
                raise CheckpointError("the average belongs to another network", path=path,
                                      expected="nothing" if known is None else f"shape {known.shape}",
                                      found=found[path].shape if path in found else "nothing")
        if COUNT not in arrays:
            raise CheckpointError("the average has no number of updates", expected=f"an entry '{COUNT}'")
        for path, array in found.items():
            value = self._averages.get(path, array)
            self._averages[path] = mx.nd.array(array.asnumpy(), ctx=value.context, dtype=value.dtype)
        self.updates = int(arrays[COUNT].asnumpy()[0])
        # What was frozen when the checkpoint was written may be free now, and the other way round.
        self._moving.update(found)

    def _moves(self, path, parameter):
        # Running statistics have no gradient and move all the same.
        if path not in self._moving and (parameter.grad_req != "null" or not is_differentiable(parameter)):
            self._moving.add(path)
        return path in self._moving

    def _put(self, parameters):
        for path, average in self._averages.items():
            for array in device_arrays(parameters[path]):
                average.astype(array.dtype, copy=False).copyto(array)


def _value(parameter):
    """Its value on the first device, in float32 at least; where devices may differ (running statistics) their mean."""
    values = device_arrays(parameter)
    if parameter.dtype in ("float16", np.float16):
        values = [value.astype("float32") for value in values]
    if len(values) == 1 or is_differentiable(parameter):
        return values[0]
    return mx.nd.add_n(*(value.as_in_context(values[0].context) for value in values)) / len(values)


def _fits(parameter, array):
    """Equal shapes, as far as the parameter's is known."""
    known = tuple(parameter.shape or ())
    return not known or (len(known) == len(array.shape) and all(
        a in (b, 0, -1) for a, b in zip(known, array.shape)))

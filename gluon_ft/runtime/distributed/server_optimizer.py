"""What an asynchronous server does with what workers send it; pickled by worker 0, as MXNet does with any optimiser."""
from __future__ import annotations

from typing import Any

# By their modules: a server runs while it imports mxnet, which has not got its shorter names yet.
from mxnet import ndarray
from mxnet.ndarray import NDArray
from mxnet.optimizer import Optimizer

# Keys of what workers tell each other begin here; below it are those of parameters. MXNet multiplies a key by 9973 in
# 32 bits to choose its server, and reads beyond its table where that overflows: from 215,331 on.
FIRST_TOLD = 100_000


class ServerOptimizer(Optimizer):
    """Steps parameters with each worker's gradient as it comes, and keeps what workers tell each other.

    Parameters
    ----------
    inner : Optimizer, optional
        Of the parameters; None before the training.
    rate_key : int, optional
        What is sent under it is the new learning rate.
    """

    def __init__(self, inner: Optimizer | None = None, rate_key: int | None = None) -> None:
        super().__init__()
        self.inner, self.rate_key = inner, rate_key

    def create_state(self, index: int, weight: NDArray) -> Any:
        """None for what is told; else the optimiser's own."""
        if self.inner is None or index >= FIRST_TOLD:
            return None
        return self.inner.create_state(index, weight)

    def update(self, index: int, weight: NDArray, grad: NDArray, state: Any) -> None:
        """Takes in what a worker sent under a key.

        Parameters
        ----------
        index : int
            The key.
        weight : NDArray
            What is kept under it.
        grad : NDArray
            What was sent. Of what is told, 0 leaves what is there.
        state : as of `create_state`
        """
        if self.inner is not None and index < FIRST_TOLD:
            self.inner.update(index, weight, grad, state)
            return
        if index == self.rate_key and self.inner is not None:
            self.inner.set_learning_rate(float(grad.asscalar()))
        weight[:] = ndarray.where(grad != 0, grad, weight)

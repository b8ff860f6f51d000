"""Clipping of gradients by their global norm."""
from __future__ import annotations

import mxnet as mx

from gluon_ft.errors import ConfigError


def clip(parameters, max_norm: float, scale: float = 1.0) -> list[mx.nd.NDArray]:
    """Scales the gradients, on each device, so that their L2 norm together is at most `max_norm` (Pascanu et al. 2013).

    Parameters
    ----------
    parameters : iterable of Parameter
        Those of the trainer; frozen ones are passed over.
    max_norm : above 0
        Of the gradient of the mean loss.
    scale : float
        What the trainer will multiply the gradients by: 1 / batch size, since Gluon's are sums over the batch.

    Returns the norms before clipping, multiplied by `scale`, as an NDArray (1,) for each device. Nothing waits for a
    device, so a gradient that is not finite is not noticed here; it makes the loss NaN. With several devices, call it
    between `trainer.allreduce_grads()` and `trainer.update()`, so that all have the same sums.
    Raises ConfigError for a max_norm or a scale out of its range.
    """
    if not max_norm > 0 or not scale > 0:
        raise ConfigError("clip_norm and scale are above 0", found=f"{max_norm} and {scale}")
    gradients: dict = {}
    for parameter in parameters:
        if parameter.grad_req != "null":
            for gradient in parameter.list_grad():
                gradients.setdefault(gradient.context, []).append(gradient)
    return [_clip(found, max_norm, scale) for found in gradients.values()]


def _clip(gradients, max_norm, scale):
    # In float32, since float16 does not hold the squares.
    whole = [gradient.astype("float32", copy=False) for gradient in gradients]
    norm = mx.nd.sqrt(mx.nd.multi_sum_sq(*whole, num_arrays=len(whole)).sum()) * scale
    factor = mx.nd.minimum(max_norm / (norm + 1e-8), 1.0)
    for gradient in gradients:
        gradient *= factor.astype(gradient.dtype, copy=False)
    return norm

"""Precision: where float32, bfloat16 and float16 can be used, graphs that compute in them, and loss scaling."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import mxnet as mx
from mxnet.gluon import Parameter

from gluon_ft.errors import ConfigError, NetworkError, near
from gluon_ft.runtime import hardware
from gluon_ft.runtime.gluon_internals import all_finite, gradients

PRECISIONS = ("float32", "bfloat16", "float16")
# MXNet 1.9.1 has no bfloat16 on GPUs, and float16 on CPUs is emulated.
_ONLY_ON = {"bfloat16": "cpu", "float16": "gpu"}


def check(name: str, contexts: list[mx.Context]) -> None:
    """ConfigError, with the reason, where `name` is unknown or these devices do not compute in it.

    bfloat16 : CPUs with instructions for it (`hardware.bfloat16_flags`). float16 : GPUs.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"unknown precision '{name}'", expected=", ".join(PRECISIONS), remedy=near(name, PRECISIONS))
    kind = _ONLY_ON.get(name)
    if kind is None:
        return
    other = sorted({c.device_type for c in contexts if not c.device_type.startswith(kind)})
    if other:
        remedy = "use bfloat16 or float32" if kind == "gpu" else "use float16 or float32"
        raise ConfigError(f"precision {name} is not for this device", expected=f"a {kind.upper()}",
                          found=", ".join(other), remedy=remedy)
    if name == "bfloat16" and not hardware.bfloat16_flags():
        raise ConfigError("this CPU has no instructions for bfloat16", expected="one of the flags avx512_bf16, "
                          "amx_bf16, bf16 in /proc/cpuinfo", found="none of them", remedy="use float32")


def convert(symbol: mx.sym.Symbol, name: str, stay: Iterable[str] = ()) -> mx.sym.Symbol:
    """Puts casts around the operators of a symbol that compute in a lower precision.

    Unlike `amp.init`, which patches MXNet for good, this changes one graph. The lists of operators are MXNet's own
    (`mxnet.contrib.amp.lists`).

    Parameters
    ----------
    symbol : mx.sym.Symbol
        With the input 'data'.
    name : {'float32', 'bfloat16', 'float16'}
        'float32' changes nothing.
    stay : iterable of str, default none
        Names of operators that are left in float32.

    Returns
    -------
    mx.sym.Symbol
        Whose parameters and results are still float32.

    Raises
    ------
    NetworkError
        MXNet cannot convert the graph.
    """
    if name == "float32":
        return symbol
    from mxnet.contrib import amp

    try:
        converted = amp.convert_symbol(symbol, target_dtype=name, data_names=["data"], excluded_sym_names=list(stay))
        results = [mx.sym.amp_cast(result, dtype="float32") for result in converted]
    except (mx.MXNetError, AssertionError, ValueError) as error:
        raise NetworkError(f"the network has no {name} form ({str(error).splitlines()[0]})",
                           remedy="use float32") from error
    return results[0] if len(results) == 1 else mx.sym.Group(results)


class LossScaler:
    """Dynamic loss scaling for float16 (Micikevicius et al., "Mixed Precision Training", 2018, section 3.2).

    The loss is multiplied by `scale` before the backward pass, so that small gradients do not vanish. A step whose
    gradients overflow is left out and halves the scale; `every` good steps in a row double it. The numbers are those of
    MXNet's AMP.

    Written for GPUs, and tested on CPUs with float32 graphs only: no GPU was at hand.

    In a loop::

        with autograd.record():
            losses = [...]
        autograd.backward(scaler.scaled(losses))
        if scaler.ready(parameters):
            trainer.step(batch_size * scaler.scale_of_step)
    """

    LARGEST = 2.0 ** 24

    def __init__(self, scale: float = 2.0 ** 16, every: int = 2000):
        self.scale, self.every, self.good, self.skipped = scale, every, 0, 0
        self.scale_of_step = scale

    def scaled(self, losses: Iterable[mx.nd.NDArray]) -> list[mx.nd.NDArray]:
        """The losses times `scale`; to be called inside or outside `autograd.record`."""
        self.scale_of_step = self.scale
        with mx.autograd.record():
            return [loss * self.scale for loss in losses]

    def ready(self, parameters: Sequence[Parameter]) -> bool:
        """Whether the gradients of all parameters, on all devices, are finite; changes the scale for the next step.

        Waits for the gradients.
        """
        per_parameter = [found for found in map(gradients, parameters) if found is not None]
        finite = all(all_finite([found[i] for found in per_parameter]) for i in range(len(parameters[0].list_ctx())))
        if not finite:
            self.scale, self.good = max(1.0, self.scale / 2), 0
            self.skipped += 1
            return False
        self.good += 1
        if self.good == self.every:
            self.scale, self.good = min(self.LARGEST, self.scale * 2), 0
        return True

    def state(self) -> dict[str, float]:
        """Plain numbers for a checkpoint."""
        return {"scale": self.scale, "every": self.every, "good": self.good, "skipped": self.skipped}

    def restore(self, state: dict[str, float]) -> None:
        """Goes on from a `state()`."""
        self.scale, self.every = float(state["scale"]), int(state["every"])
        self.good, self.skipped = int(state["good"]), int(state["skipped"])
        self.scale_of_step = self.scale

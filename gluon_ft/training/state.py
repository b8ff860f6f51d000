"""Everything that training needs to go on as if nothing had happened: gathered for a checkpoint, and put back."""
from __future__ import annotations

import mxnet as mx
import numpy as np

from gluon_ft.errors import CheckpointError, near
from gluon_ft.training.checkpoint import Bundle
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.optimizers import restore_trainer, trainer_state
from gluon_ft.training.schedule import OPEN_ENDED

# What may differ between the run that saved and the one that goes on: it changes no parameter.
FREE = ("save_every", "save_minutes", "keep", "top_k", "allow_empty_classes", "kvstore")


def gather(stepper, values: dict, meter=None) -> Bundle:
    """Parameters (running statistics of every device), optimiser, average, scaler and meter, with `values`."""
    arrays = {}
    for path, parameter in stepper.net._collect_params_with_prefix().items():
        copies = parameter.list_data()
        arrays[f"parameter/{path}"] = copies[0].asnumpy()
        if path.endswith(("running_mean", "running_var")):
            # Each device has seen other images.
            arrays.update({f"parameter/{path}@{k}": copy.asnumpy() for k, copy in enumerate(copies[1:], 1)})
    optimizer, counts = trainer_state(stepper.trainer, stepper.paths)
    arrays.update({f"optimizer/{name}": array.asnumpy() for name, array in optimizer.items()})
    if stepper.average is not None:
        arrays.update({f"average/{name}": np.asarray(_numpy(a)) for name, a in stepper.average.arrays().items()})
    if meter is not None:
        arrays.update({f"meter/{name}": array for name, array in meter.arrays().items()})
    state = {**values, "updates": counts, "meter": None if meter is None else [meter.count, meter.steps],
             "scaler": stepper.scaler.state() if stepper.scaler else None, "devices": len(stepper.contexts)}
    return Bundle(state, arrays)


def _numpy(array):
    return array.asnumpy() if isinstance(array, mx.nd.NDArray) else array


def restore(stepper, bundle: Bundle, where) -> None:
    """Puts back what `gather` took, but for the meter; CheckpointError where it is another network's."""
    _same_network(stepper.net, bundle, where)
    for path, parameter in stepper.net._collect_params_with_prefix().items():
        copies = parameter.list_data()
        for k, copy in enumerate(copies):
            saved = bundle.arrays.get(f"parameter/{path}@{k}", bundle.arrays[f"parameter/{path}"])
            copy[:] = mx.nd.array(saved, ctx=copy.context, dtype=saved.dtype)
    arrays = {name: mx.nd.array(a, dtype=a.dtype) for name, a in under(bundle, "optimizer/").items()}
    restore_trainer(stepper.trainer, stepper.paths, arrays, bundle.values["updates"])
    if stepper.average is not None:
        stepper.average.restore({name: mx.nd.array(a, dtype=a.dtype) for name, a in under(bundle, "average/").items()})
    if stepper.scaler:
        stepper.scaler.restore(bundle.values["scaler"])


def under(bundle: Bundle, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin so, without that."""
    return {name[len(prefix):]: array for name, array in bundle.arrays.items() if name.startswith(prefix)}


def _same_network(net, bundle, where):
    saved = {name.rpartition("@")[0] or name: array for name, array in under(bundle, "parameter/").items()}
    own = net._collect_params_with_prefix()
    for path, parameter in own.items():
        if path not in saved or tuple(saved[path].shape) != tuple(parameter.shape):
            raise CheckpointError("the checkpoint is another network's", path=where,
                                  expected=f"{path} of shape {tuple(parameter.shape)}",
                                  found=saved[path].shape if path in saved else f"none; {near(path, saved)}",
                                  remedy="build the network of that run, or start without resuming")
    stray = sorted(set(saved) - set(own))
    if stray:
        raise CheckpointError("the checkpoint is another network's", path=where, found=f"{stray[0]} in it",
                              remedy="build the network of that run, or start without resuming")


def check_same(saved: dict, now: dict, where) -> None:
    """CheckpointError where configuration, data or devices differ from the saved ones, with the difference.

    More `epochs` than before are allowed where the schedule does not look ahead.
    """
    differences = []
    for part in ("config", "train", "val", "devices"):
        before, after = saved.get(part), now.get(part)
        if part == "config":
            # What an earlier version did not know had its default.
            before = {**TrainConfig().to_dict(), **before}
        if isinstance(before, dict) and isinstance(after, dict):
            differences += [(f"{part}: {key}", before.get(key), after.get(key)) for key in sorted({*before, *after})
                            if before.get(key) != after.get(key) and not _may_differ(part, key, before, after)]
        elif before != after:
            differences.append((part, before, after))
    if differences:
        what, before, after = differences[0]
        more = f" (and {len(differences) - 1} more: {', '.join(d[0] for d in differences[1:5])})" if differences[
            1:] else ""
        raise CheckpointError(f"cannot go on with another {what}{more}", path=where, expected=_short(before),
                              found=_short(after), remedy="give what that run had, or start without resuming")


def _may_differ(part, key, before, after):
    if part != "config":
        return False
    return key in FREE or (key == "epochs" and after["epochs"] > before["epochs"] and after["schedule"] in OPEN_ENDED)


def _short(value):
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

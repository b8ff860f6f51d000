"""What a checkpoint must hold to be gone on from: anybody may have written or changed it."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gluon_ft.io.shapes import anything, each, listed, maybe, named, number, row, text, whole
from gluon_ft.training import ema

if TYPE_CHECKING:
    from gluon_ft.training.checkpoint import Bundle

_MANY = 1 << 40  # epochs, batches and updates that no training reaches
_ACCURACY = number(0, 1)
_EPOCH = named({"epoch": whole(1, _MANY), "train_loss": maybe(number()), "train_accuracy": _ACCURACY,
                "lr": maybe(number()), "seconds": number()},
               {"validation_loss": maybe(number()), "validation_accuracy": _ACCURACY}, others=True)
_SCALER = named({"scale": number(1e-30, 1e30), "every": whole(1, _MANY), "good": whole(0, _MANY),
                 "skipped": whole(0, _MANY)})
_VALUES = named({
    "identity": named({"config": each(anything), "devices": whole(1), "train": maybe(each(anything)),
                       "val": maybe(each(anything))}),
    "epoch": whole(1, _MANY), "batches": whole(0, _MANY), "in_epoch": number(), "seconds": number(),
    "history": listed(_EPOCH), "stopped": maybe(text()), "first_pass": maybe(whole(0, _MANY)),
    "patience": named({"best": maybe(number()), "waited": whole(0, _MANY)}),
    "label_counts": maybe(listed(whole(0))), "updates": each(whole(0, _MANY), 1 << 20),
    "meter": maybe(row(whole(1, _MANY), whole(1, _MANY))), "scaler": maybe(_SCALER), "devices": whole(1),
}, others=True)
_DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int32", "int64")  # that MXNet has


def check(bundle: Bundle) -> None:
    """Raises ValueError with what does not fit in it, whatever network and data it is for."""
    values = bundle.values
    _VALUES(values, "")
    history, scaled = values["history"], values["identity"]["config"].get("precision") == "float16"
    # Not compared with a range up to `epoch`, which in a damaged file may be as long as memory.
    in_order = all(record["epoch"] == number for number, record in enumerate(history, 1))
    _need(in_order and len(history) == values["epoch"] - 1, "history",
          f"the epochs before {values['epoch']}", f"{len(history)} records")
    validated = values["identity"]["val"] is not None
    _need(all(("validation_accuracy" in record) == validated for record in history), "history",
          "validation in each epoch" if validated else "no validation", "another")
    _need((values["scaler"] is not None) == scaled, "scaler", "one" if scaled else "null",
          "null" if scaled else "one")
    _need((values["meter"] is not None) == (values["batches"] > 0), "meter", "sums in the middle of an epoch only",
          f"{values['meter']} after {values['batches']} batches")
    for name, array in bundle.arrays.items():
        _need(array.dtype.name in _DTYPES and array.ndim > 0 and array.size > 0, f"array {name}",
              "numbers of a kind that MXNet has", f"{array.dtype} of shape {array.shape}")
    _meter_sums(values, bundle.under("meter/"))
    updates = bundle.arrays.get(f"average/{ema.COUNT}")
    _need(updates is None or (np.issubdtype(updates.dtype, np.integer) and updates.shape == (1,) and updates[0] >= 0),
          "average", "a number of updates", getattr(updates, "shape", None))


def _meter_sums(values: dict[str, Any], sums: dict[str, np.ndarray]) -> None:
    """The sums are '<device>/<which>': as many on each device, two or, with top-k accuracy, three."""
    devices = {name.partition("/")[0] for name in sums}
    wanted = {f"{device}/{i}" for device in devices for i in range(3 if len(sums) > 2 * len(devices) else 2)}
    right = (set(sums) == wanted and all(re.fullmatch(r"[0-9]{1,4}", device) for device in devices)
             and all(int(device) < values["identity"]["devices"] for device in devices)
             and all(array.shape == (1,) for array in sums.values()))
    _need(right and bool(sums) == (values["meter"] is not None), "meter", "the sums of each device", sorted(sums)[:6])


def _need(holds: bool, place: str, words: str, found: Any) -> None:
    if not holds:
        raise ValueError(f"{place} does not fit (expected {words}, found {found})")

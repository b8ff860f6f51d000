"""Which layer costs most in integers: each in turn stays in float32, and the answers come so much nearer."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gluon_ft.engine import onnx_runtime
from gluon_ft.export.int8.graph import Plan, quantised
from gluon_ft.export.int8.ranges import Ranges
from gluon_ft.export.onnx_files import INPUT
from gluon_ft.io import reporter

MOST_GROUPS = 16
MOST_IMAGES = 64
_BATCH = 16


def dearest(plan: Plan, ranges: Ranges, keep: Sequence[str], images: np.ndarray,
            expected: np.ndarray) -> tuple[str, float] | None:
    """The layer that moves the probabilities most, and the share of the difference that it makes.

    Groups of layers in a row are tried first, then each layer of the dearest group: about 16 trials, and a 16th of the
    number of layers. None where no layer is left in integers.

    Parameters
    ----------
    plan : Plan
        Of the model without kept layers.
    ranges : Ranges
    keep : sequence of str
        Names of the nodes in float32 already.
    images : uint8 array
        As the model takes them.
    expected : array
        The float32 model's probabilities for them.
    """
    names = [node.name for node in plan.layers if node.name not in keep]
    if not names:
        return None

    def apart(more: Sequence[str]) -> float:
        model = quantised(Plan(plan.model, {*keep, *more}), ranges.of, ranges.means)
        session = onnx_runtime.open_session(model.SerializeToString())
        found = np.concatenate([session.run(None, {INPUT: images[i:i + _BATCH]})[0]
                                for i in range(0, len(images), _BATCH)])
        return float(np.abs(found - expected).sum())

    groups = [list(part) for part in np.array_split(np.array(names, object), min(MOST_GROUPS, len(names)))]
    largest = max(map(len, groups))
    with reporter.progress(total=1 + len(groups) + (largest if largest > 1 else 0), desc="layers", unit="layer") as bar:
        def tried(more: Sequence[str]) -> float:
            found = apart(more)
            bar.update()
            return found

        whole = tried([])
        left = {group[0]: tried(group) for group in groups}
        group = next(group for group in groups if group[0] == min(left, key=lambda name: left[name]))
        if len(group) > 1:
            left = {name: tried([name]) for name in group}
    name = min(left, key=lambda name: left[name])
    return name, 1 - left[name] / whole if whole else 0.0

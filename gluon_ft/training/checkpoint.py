"""Checkpoints: everything that training needs to go on as if nothing had happened, in one file, and their folder."""
from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np
import safetensors.numpy

from gluon_ft.errors import CheckpointError, near
from gluon_ft.io import atomic, documents, locks
from gluon_ft.io.paths import InUse
from gluon_ft.io.settings import plain
from gluon_ft.runtime.gluon_internals import (
    device_arrays,
    parameters_by_path,
    set_update_counts,
    settle,
    trained_parameters,
    update_counts,
    updaters,
    values_of,
    write_parameters,
)
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.schedule import OPEN_ENDED
from gluon_ft.weights.readers.params_files import check_whole

if TYPE_CHECKING:
    from mxnet.gluon import Block

    from gluon_ft.runtime.distributed.workers import Workers
    from gluon_ft.training.metrics import Meter
    from gluon_ft.training.step import Stepper

FORMAT = "gluon_ft checkpoint 1"
FOLDER = "checkpoints"
# What may differ between the run that saved and the one that goes on: it changes no parameter.
FREE = ("save_every", "save_minutes", "keep", "top_k", "allow_empty_classes", "kvstore")
_VALUES, _TENSORS = "state.json", "tensors.safetensors"
_NAME = re.compile(r"epoch-(\d{4,})-batch-(\d{6,})\.ckpt")


def _name(epoch: int, batch: int) -> str:
    return f"epoch-{epoch:04d}-batch-{batch:06d}.ckpt"


@dataclass(frozen=True)
class Bundle:
    """The contents of a checkpoint. values : what JSON can hold; arrays : name -> NumPy array."""

    values: dict
    arrays: dict[str, np.ndarray]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with `prefix`, by the rest of their names."""
        return {name[len(prefix):]: array for name, array in self.arrays.items() if name.startswith(prefix)}


def write(path: str | Path, bundle: Bundle) -> Path:
    """Writes a bundle: a zip file without compression, whose checksums show damage anywhere in it.

    Raises CheckpointError where that cannot be done (disk full, no permission); what was at `path` is then still there.
    """
    path = Path(path)
    with saving(path), atomic.replacing(path) as temporary:
        _pack(temporary, bundle)
    return path


def _pack(file, bundle):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_VALUES, json.dumps({"format": FORMAT, **plain(bundle.values)}, allow_nan=False))
        with archive.open(_TENSORS, "w", force_zip64=True) as member:
            member.write(safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in bundle.arrays.items()}))


def _unpack(data):
    # Whole from memory: zipfile reports damage found on the way in many kinds of exceptions.
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        values = documents.parse_json(archive.read(_VALUES), documents.MOST_BYTES_RECORDED)
        arrays = safetensors.numpy.load(archive.read(_TENSORS))
    if values.pop("format") != FORMAT:
        raise ValueError("another format")
    return Bundle(values, arrays)


def of_first(workers: Workers, bundle: Bundle | None) -> Bundle:
    """Worker 0's bundle, for all workers; the others give None."""
    if not workers.several:
        assert bundle is not None
        return bundle
    data = io.BytesIO()
    if bundle is not None:
        _pack(data, bundle)
    return _unpack(workers.first(data.getvalue()))


def read(path: str | Path) -> Bundle:
    """Reads a bundle; CheckpointError where it is damaged, cut short, or something else."""
    path = Path(path)
    with reading(path):
        return _unpack(path.read_bytes())


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns every error inside into a CheckpointError: a damaged file can fail in any way that its readers can."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError("no such checkpoint", path=path, remedy="start without resuming") from error
    except Exception as error:
        what = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        raise CheckpointError("the checkpoint is damaged", path=path, expected=FORMAT, found=what[:200],
                              remedy="delete it to go on from the one before") from error


def save_parameters(net: Block, path: str | Path) -> Path:
    """`net.save_parameters`, whole or not at all.

    Raises CheckpointError where that cannot be done; what was at `path` is then still there.
    """
    path = Path(path)
    with saving(path), atomic.replacing(path) as temporary:
        write_parameters(net, str(temporary))
        check_whole(temporary)
    return path


def save_arrays(arrays: dict[str, mx.nd.NDArray], path: Path) -> None:
    """`mx.nd.save`, whole or not at all. Raises OSError and MXNetError, see `saving`."""
    settle()
    with atomic.replacing(path) as temporary:
        mx.nd.save(str(temporary), arrays)
        check_whole(temporary)


@contextlib.contextmanager
def saving(path: Path, message: str = "could not be saved") -> Iterator[None]:
    """Makes the folder of `path`; turns an OSError or MXNetError inside into a CheckpointError with `message`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, mx.MXNetError) as error:
        raise CheckpointError(message, path=path, found=str(error).splitlines()[0],
                              remedy="free some space or choose another folder; what was saved before is still there"
                              ) from error


class Store:
    """The folder of one training: `last.params`, `best.params`, and checkpoints named by epoch and batch.

    Parameters
    ----------
    folder : path-like
        The checkpoints are in its subfolder 'checkpoints'.
    keep : int, default 2
        How many of the latest checkpoints stay, beside the one at the end of the best epoch.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep
        self.last, self.best = self.folder / "last.params", self.folder / "best.params"
        self._in_use: InUse | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out while one trains here; CheckpointError where another one does.

        What was made here is removed again where nothing was saved in it.
        """
        place = self.folder / FOLDER
        made = [folder for folder in (place, self.folder) if not folder.exists()]
        with saving(place / locks.CHECKPOINTS):
            lock = locks.acquire(place / locks.CHECKPOINTS, busy=CheckpointError(
                "another process is training here", path=self.folder, remedy="wait for it, or name another folder"))
        try:
            with lock:
                self._in_use = InUse(self.folder, CheckpointError)
                yield
        finally:
            for folder in made:
                with contextlib.suppress(OSError):  # not empty, or gone
                    folder.rmdir()

    def begun(self) -> bool:
        """Whether a step has been saved, and not only the beginning."""
        return any(path.name != _name(1, 0) for path in self.paths())

    def _check(self):
        if self._in_use is not None:
            self._in_use.check()

    def paths(self) -> list[Path]:
        """The checkpoints, oldest first."""
        found = [(m, p) for p in (self.folder / FOLDER).glob("*.ckpt") if (m := _NAME.fullmatch(p.name))]
        return [p for m, p in sorted(found, key=lambda item: (int(item[0][1]), int(item[0][2])))]

    def save_parameters(self, net: Block, is_best: bool) -> tuple[Path, Path]:
        """Writes `last.params`, and `best.params` where `is_best`; returns both paths."""
        self._check()
        save_parameters(net, self.last)
        if is_best:
            save_parameters(net, self.best)
        return self.last, self.best

    def save(self, epoch: int, batch: int, bundle: Bundle, best_epoch: int) -> Path:
        """Writes a checkpoint and removes old ones: the latest `keep` stay, and the one at the end of the best epoch.

        Parameters
        ----------
        epoch : int
            From 1.
        batch : int
            Batches of that epoch done so far; 0 at its beginning.
        bundle : Bundle
            What `gather` took.
        best_epoch : int
            The best epoch so far, from 1; 0 where none is done.

        Returns
        -------
        Path
            Of the new checkpoint.

        Raises
        ------
        CheckpointError
            It cannot be written, or the folder was removed meanwhile.
        """
        self._check()
        path = write(self.folder / FOLDER / _name(epoch, batch), bundle)
        best = _name(best_epoch + 1, 0)
        for old in self.paths()[:-self.keep]:
            if old.name != best:
                old.unlink(missing_ok=True)
        # A process killed while it wrote left a temporary file.
        for stray in (self.folder / FOLDER).glob(".*.tmp"):
            stray.unlink(missing_ok=True)
        return path

    def latest(self) -> tuple[Path, Bundle]:
        """The newest checkpoint; CheckpointError where there is none, or it is damaged."""
        found = self.paths()
        if not found:
            raise CheckpointError("no checkpoint to go on from", path=self.folder / FOLDER,
                                  remedy="start without resuming, or name the folder of the run")
        return found[-1], read(found[-1])

    def clear(self) -> None:
        """Removes the checkpoints of an earlier training."""
        for path in self.paths():
            path.unlink(missing_ok=True)


def gather(stepper: Stepper, values: dict, meter: Meter | None = None) -> Bundle:
    """Collects what a checkpoint holds: parameters, optimiser, moving average, loss scaler and meter.

    Parameters
    ----------
    stepper : Stepper
    values : dict
        Further values that JSON can hold, such as the place in the training.
    meter : Meter, optional
        Of the epoch under way; None between epochs.

    Returns
    -------
    Bundle
        Its arrays are copies on the CPU: 'parameter/<path>' and, for the running statistics of further devices,
        'parameter/<path>@<device>'; 'optimizer/...', 'average/...', 'meter/...'.

    Raises
    ------
    TrainingError
        A loss that the meter had not looked at yet is not finite.
    """
    arrays = {}
    for path, parameter in parameters_by_path(stepper.net).items():
        copies = values_of(parameter)
        arrays[f"parameter/{path}"] = copies[0].asnumpy()
        if path.endswith(("running_mean", "running_var")):
            # Each device has seen other images.
            arrays.update({f"parameter/{path}@{k}": copy.asnumpy() for k, copy in enumerate(copies[1:], 1)})
    optimizer, counts = _trainer_state(stepper.trainer, stepper.paths)
    arrays.update({f"optimizer/{name}": array.asnumpy() for name, array in optimizer.items()})
    if stepper.average is not None:
        arrays.update({f"average/{name}": array.asnumpy() for name, array in stepper.average.arrays().items()})
    if meter is not None:
        arrays.update({f"meter/{name}": array for name, array in meter.arrays().items()})
    state = {**values, "updates": counts, "meter": None if meter is None else [meter.count, meter.steps],
             "scaler": stepper.scaler.state() if stepper.scaler else None, "devices": len(stepper.contexts)}
    return Bundle(state, arrays)


def restore(stepper: Stepper, bundle: Bundle, where: Path) -> None:
    """Puts back what `gather` took, except for the meter.

    Parameters
    ----------
    stepper : Stepper
        Begun, with the network, optimiser and devices of the saved training.
    bundle : Bundle
    where : Path
        Of the checkpoint, for errors.

    Raises
    ------
    CheckpointError
        The checkpoint is another network's or optimiser's.
    """
    _check_network(stepper.net, bundle, where)
    for path, parameter in parameters_by_path(stepper.net).items():
        copies = device_arrays(parameter)
        for k, copy in enumerate(copies):
            saved = bundle.arrays.get(f"parameter/{path}@{k}", bundle.arrays[f"parameter/{path}"])
            copy[:] = mx.nd.array(saved, ctx=copy.context, dtype=saved.dtype)
    _restore_trainer(stepper.trainer, stepper.paths, _on_cpu(bundle.under("optimizer/")), bundle.values["updates"])
    if stepper.average is not None:
        stepper.average.restore(_on_cpu(bundle.under("average/")))
    if stepper.scaler:
        stepper.scaler.restore(bundle.values["scaler"])


def _on_cpu(arrays):
    return {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}


def _check_network(net, bundle, where):
    saved, own = bundle.under("parameter/"), parameters_by_path(net)
    for name in [*own, *sorted(set(saved) - set(own))]:
        parameter = own.get(re.sub("@[0-9]+$", "", name))
        fitting = None if parameter is None else tuple(parameter.shape)
        found = tuple(saved[name].shape) if name in saved else None
        if fitting is None or fitting != found:
            raise CheckpointError("the checkpoint is another network's", path=where,
                                  expected=None if fitting is None else f"{name} of shape {fitting}",
                                  found=f"{name} in it" if fitting is None else found or f"none; {near(name, saved)}",
                                  remedy="build the network of that run, or start without resuming")


def check_same(saved: dict, now: dict, where: Path) -> None:
    """Makes sure that a training goes on with the configuration, data and devices that it was saved with.

    More `epochs` than before are allowed where the schedule does not depend on their number.

    Parameters
    ----------
    saved, now : dict
        'config' (as of `TrainConfig.to_dict`), 'train', 'val' and 'devices'; of the checkpoint and of this run.
    where : Path
        Of the checkpoint, for errors.

    Raises
    ------
    CheckpointError
        They differ; the error names the first difference with both values, and up to four more.
    """
    differences = []
    for part in ("config", "train", "val", "devices"):
        before, after = saved.get(part), now.get(part)
        if part == "config":
            # What an earlier version did not know had its default.
            before = {**TrainConfig().to_dict(), **saved["config"]}
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
    if key in FREE:
        return True
    longer = key == "epochs" and isinstance(before["epochs"], int) and after["epochs"] > before["epochs"]
    return longer and after["schedule"] in OPEN_ENDED


def _short(value):
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def optimizer_state(updater: mx.optimizer.Updater, names: dict) -> dict[str, mx.nd.NDArray]:
    """The arrays of an optimiser by parameter, so that no pickle, which could run code, is needed.

    Parameters
    ----------
    updater : mx.optimizer.Updater
        What holds the optimiser's arrays.
    names : dict
        The updater's key -> parameter; several keys of one parameter (its devices) have equal arrays.

    Returns
    -------
    dict of 'parameter' or, where a parameter has several arrays, 'parameter#0', ... -> NDArray
    """
    flat = {}
    for key, value in updater.states.items():
        parts = {"": value} if not isinstance(value, (list, tuple)) else {f"#{i}": v for i, v in enumerate(value)}
        flat.update({f"{names[key]}{suffix}": part for suffix, part in parts.items() if part is not None})
    return flat


def restore_optimizer(updater: mx.optimizer.Updater, names: dict, flat: dict[str, mx.nd.NDArray],
                      weights: dict[str, mx.nd.NDArray], updates: int) -> None:
    """Puts saved arrays back, and the number of updates, on which Adam's correction depends.

    Parameters
    ----------
    updater, names : as in `optimizer_state`
    flat : dict
        What that returned.
    weights : dict
        Parameter -> its array, from which the form of the optimiser's arrays is made.
    updates : int
        Steps of the optimiser so far.

    Raises
    ------
    CheckpointError
        Where the arrays are not those of this optimiser.
    """
    used = set()
    for key, name in names.items():
        if name not in weights:
            continue
        fresh = updater.optimizer.create_state_multi_precision(key, weights[name])
        several = isinstance(fresh, (list, tuple))
        wanted = {"": fresh} if not several else {f"#{i}": v for i, v in enumerate(fresh)}
        values = []
        for suffix, part in wanted.items():
            saved = flat.get(name + suffix)
            if (saved.shape if saved is not None else None) != (part.shape if part is not None else None):
                raise CheckpointError(f"the optimiser's state of '{name}' does not fit", found=
                                      "none" if saved is None else saved.shape, remedy="train with the same optimiser")
            used.add(name + suffix)
            values.append(None if saved is None else saved.copy())
        updater.states[key] = tuple(values) if several else values[0]
        updater.states_synced[key] = False
    stray = set(flat) - used
    if stray:
        raise CheckpointError("the optimiser's state is another network's", found=sorted(stray)[0])
    updater.optimizer.begin_num_update = updater.optimizer.num_update = updates


def _trainer_state(trainer, paths):
    """(arrays, updates of each parameter so far) of a Gluon Trainer; of several devices, which agree, the first."""
    counts = {paths[index]: count for index, count in update_counts(trainer).items()}
    return optimizer_state(updaters(trainer)[0], paths), counts


def _restore_trainer(trainer, paths, arrays, counts):
    known = {index: path for index, path in paths.items() if path in counts}
    for number, updater in enumerate(updaters(trainer)):
        weights = {path: device_arrays(trained_parameters(trainer)[index])[number] for index, path in known.items()}
        place = next((weight.context for weight in weights.values()), mx.cpu())
        placed = {name: array.as_in_context(place) for name, array in arrays.items()}
        restore_optimizer(updater, known, placed, weights, max(counts.values(), default=0))
    set_update_counts(trainer, {index: counts[path] for index, path in known.items()})

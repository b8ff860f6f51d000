"""Saves and loads the checkpoints of symbolic training, from which it resumes to the same result, bit for bit.

The files of epoch 3 are `model-symbol.json` and `model-0003.params`, which `mx.model.load_checkpoint` reads;
`model-0003.optimizer.params` with the optimiser's state (not a pickle, which could run code); and `model-0003.json`.
The last is written last: without it, the epoch is incomplete and is ignored.
"""
from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mxnet as mx

from gluon_ft.errors import CheckpointError
from gluon_ft.io import atomic, documents
from gluon_ft.io.checksums import sha256_of
from gluon_ft.io.paths import InUse
from gluon_ft.io.settings import plain
from gluon_ft.io.shapes import anything, each, listed, maybe, named, number, one_of, text, whole
from gluon_ft.symbolic import legacy
from gluon_ft.training import checkpoint
from gluon_ft.weights.readers.tensor_files import read_tensors

PREFIX = "model"
FORMAT = "gluon_ft symbolic checkpoint 1"
_STATE = named({"format": one_of(FORMAT), "epoch": whole(0), "updates": whole(0), "passes": maybe(whole(0)),
                "settings": each(anything),
                "history": listed(named({"epoch": whole(0)}, {name: maybe(number()) for name in (
                    "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")}, others=True)),
                "best_epoch": whole(0)},
               {"classes": maybe(listed(text(4096))), "preprocessing": maybe(each(anything, 20)),
                "sha256": each(text(64), 2)})


@dataclass
class State:
    """The contents of a checkpoint apart from parameters and optimiser state.

    Attributes
    ----------
    epoch : int
        The last completed epoch, counted from 1.
    updates : int
        Optimiser updates so far.
    passes : int or None
        Passes that the training loader has begun; None if it does not count them.
    settings : dict
        Settings that must not change when training is resumed, see `Plan.settings`.
    history : list of dict
        One record per epoch so far.
    best_epoch : int
    classes : list of str or None
        Class names in label order; None if not known.
    preprocessing : dict or None
        The input format of the network; None if not known.
    sha256 : dict of str to str
        File name -> SHA-256.
    """

    epoch: int
    updates: int
    passes: int | None
    settings: dict
    history: list[dict]
    best_epoch: int
    classes: list[str] | None = None
    preprocessing: dict | None = None
    sha256: dict[str, str] = field(default_factory=dict)


def params_path(folder: str | Path, epoch: int) -> Path:
    """The parameter file of an epoch."""
    return legacy.parameter_file(Path(folder) / PREFIX, epoch)


def made(folder: str | Path) -> InUse:
    """Creates the folder for checkpoints if it is missing; CheckpointError if that fails."""
    with checkpoint.saving(params_path(folder, 0), "the checkpoint could not be saved"):
        return InUse(folder, CheckpointError)


def save(folder: str | Path, symbol: mx.sym.Symbol, arg_params: dict, aux_params: dict, optimizer_states: dict,
         state: State) -> Path:
    """Writes the files of one epoch, each atomically. Earlier epochs are kept.

    Parameters
    ----------
    folder : path-like
    symbol : mx.sym.Symbol
    arg_params, aux_params : dict of str to NDArray
    optimizer_states : dict of str to NDArray
        From `module.saved_state`; if it is empty, no file is written for it.
    state : State
        Its `epoch` is part of the file names; its `sha256` is set here.

    Returns
    -------
    Path
        The parameter file.

    Raises
    ------
    CheckpointError
        A file cannot be written.
    """
    folder = Path(folder)
    params = params_path(folder, state.epoch)
    both = {"arg": arg_params, "aux": aux_params}
    files = {params: {f"{kind}:{k}": v for kind, arrays in both.items() for k, v in arrays.items()}}
    if optimizer_states:
        files[params.with_suffix(".optimizer.params")] = optimizer_states
    with checkpoint.saving(params, "the checkpoint could not be saved"):
        atomic.write(folder / f"{PREFIX}-symbol.json", symbol.tojson())
        for path, arrays in files.items():
            checkpoint.save_arrays(arrays, path)
        state.sha256 = {path.name: sha256_of(path) for path in files}
        atomic.write(params.with_suffix(".json"),
                     json.dumps({"format": FORMAT, **plain(asdict(state))}, indent=1, allow_nan=False))
    return params


def epochs(folder: str | Path) -> list[int]:
    """The epochs with a complete checkpoint in a folder, in order."""
    folder = Path(folder)
    found = [re.fullmatch(rf"{PREFIX}-(\d{{4,}})\.json", p.name) for p in folder.glob(f"{PREFIX}-*.json")]
    return sorted(int(m[1]) for m in found if m)


def load_state(folder: str | Path, epoch: int) -> State:
    """Loads the state saved after an epoch, and verifies the checksums of the files that belong to it.

    Raises CheckpointError if it is damaged, or one of the files is missing or has changed.
    """
    path = params_path(folder, epoch).with_suffix(".json")
    try:
        values = documents.read_json(path, documents.MOST_BYTES_RECORDED)
        _STATE(values, "")
        state = State(**{name: value for name, value in values.items() if name != "format"})
        own = params_path(folder, epoch)
        if not set(state.sha256) <= {own.name, own.with_suffix(".optimizer.params").name}:
            raise ValueError("sha256 names files of another checkpoint")
    except (OSError, ValueError) as error:
        raise CheckpointError("not a checkpoint's description", path=path, expected=FORMAT,
                              found=f"{type(error).__name__} {error}"[:160], remedy=_remedy(epoch)) from error
    for name, digest in state.sha256.items():
        file = path.with_name(name)
        found = sha256_of(file) if file.is_file() else None
        if found != digest:
            raise CheckpointError("the file is missing" if found is None else "the file is not the one that was saved",
                                  path=file, expected=f"sha256 {digest}", found=found, remedy=_remedy(epoch))
    return state


def _remedy(epoch):
    return f"delete {PREFIX}-{epoch:04d}.json to go on from the epoch before"


def load_optimizer(folder: str | Path, epoch: int) -> dict[str, mx.nd.NDArray]:
    """The optimiser's state, as saved by `save`; empty if there is none."""
    path = params_path(folder, epoch).with_suffix(".optimizer.params")
    if not path.is_file():
        return {}
    return {name: mx.nd.array(value, dtype=value.dtype) for name, value in read_tensors(path).tensors.items()}

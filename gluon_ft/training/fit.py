"""`fit`: trains a network in place, on one or several devices, and goes on where it was interrupted."""
from __future__ import annotations

import contextlib

from gluon_ft.errors import ConfigError
from gluon_ft.training import checkpoint, memory, signals
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.loop import Result, Training, epoch_record

__all__ = ["Result", "epoch_record", "fit"]


def fit(net, train, val=None, config: TrainConfig | None = None, *, ctx=None, save_to=None, resume: bool = False,
        on_epoch=None, name: str = "training") -> Result:
    """Trains `net` in place.

    Parameters
    ----------
    net : HybridBlock
        Initialised; what its `grad_req` freezes stays, `lr_mult` and `wd_mult` are honoured.
    train, val : loaders
        Anything that `gluon_ft.data.batches.batches` takes; `train` decides about shuffling; `val` may be None.
    config : TrainConfig, default TrainConfig()
    ctx : list of mx.Context, default where the network is
        Each batch is divided among them; the batch size does not grow with their number.
    save_to : folder, optional
        Gets `last.params` after every epoch and `best.params` whenever the validation accuracy is a new best (of the
        average, where `config.ema`), and `checkpoints/`, each file whole or not at all. SIGINT and SIGTERM then save a
        checkpoint and raise `errors.Interrupted`; a second one ends the process at once.
    resume : bool
        Go on from the last checkpoint in `save_to`, on CPU to the same parameters and metrics, bit for bit, as without
        the interruption (given a seed, and loaders that repeat themselves, as ours do).
    on_epoch : callable(record: dict), optional
        Gets each epoch's record, for instance `run.log`; when resuming, first those of the epochs before.
    name : str
        Shown in the progress bar and in errors.

    Raises
    ------
    TrainingError: nothing is trainable, a label outside the network's output (before the step that would use it),
    a loss that is not finite (the last checkpoint stays), too little memory. DataError: an empty set, or a class
    without training images. ConfigError: settings that do not fit network, data or machine. CheckpointError: cannot
    be saved, another process is training there; when resuming: no checkpoint, a damaged one, or one of another
    network, configuration or data.
    """
    config = config or TrainConfig()
    if resume and save_to is None:
        raise ConfigError("resume needs the folder of the checkpoints", remedy="give save_to")
    store = None if save_to is None else checkpoint.Store(save_to, config.keep)
    with contextlib.ExitStack() as stack:
        if store is not None:
            stack.enter_context(store.locked())
        stop = None if store is None else stack.enter_context(signals.caught())
        stack.enter_context(memory.explained(name, getattr(train, "batch_size", None)))
        training = Training(net, train, val, config, ctx, store, stop, on_epoch, name)
        stack.callback(training.stepper.finish)
        return training.run(resume)

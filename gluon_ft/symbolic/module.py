"""Creates the `mx.mod.Module` of a plan, checks that its optimiser uses the multipliers, and runs its steps."""
from __future__ import annotations

from dataclasses import dataclass

import mxnet as mx

from gluon_ft.data.batches import Batch
from gluon_ft.engine import sync_batchnorm
from gluon_ft.errors import ConfigError, TrainingError
from gluon_ft.models import graph
from gluon_ft.runtime.distributed.workers import Exchange, Workers
from gluon_ft.runtime.gluon_internals import (
    module_arrays,
    module_parameters,
    module_updater,
    parameters_have_moved,
    rates_of,
    settle,
    updates_on_kvstore,
)
from gluon_ft.symbolic.head import DATA
from gluon_ft.symbolic.iterators import filled
from gluon_ft.symbolic.legacy import Parameters
from gluon_ft.symbolic.plan import PADDING, Plan
from gluon_ft.training import checkpoint
from gluon_ft.training.metrics import image_form_explained


@dataclass
class Trainee:
    """A bound module with its optimiser. `keys` maps each key of the updater to the name of its parameter.

    `workers` are those that train together, and `exchange` is what adds up their gradients; None for one process.
    """

    plan: Plan
    module: mx.mod.Module
    optimizer: mx.optimizer.Optimizer
    keys: dict
    workers: Workers
    exchange: Exchange | None = None
    updates: int = 0

    @property
    def updater(self) -> mx.optimizer.Updater:
        """The updater, which holds the optimiser's state: that of the KVStore, or the module's own."""
        return module_updater(self.module)


def make(plan: Plan, shape: tuple[int, ...], arg_params: Parameters, aux_params: Parameters,
         initializer: mx.init.Initializer | None = None, workers: Workers | None = None) -> Trainee:
    """Creates the module of a plan, and sets its parameters and its optimiser.

    Parameters
    ----------
    plan : Plan
    shape : tuple of int
        Shape of a batch's data; its first number is replaced by `plan.batch_size`.
    arg_params, aux_params : dict of str to NDArray
        They are copied. The last layer's parameters may be missing.
    initializer : mx.init.Initializer, default Xavier(gaussian, in, 2)
        Initialises the parameters that are missing.
    workers : Workers, optional
        Those that train together; all begin with the parameters of worker 0.

    Returns
    -------
    Trainee

    Raises
    ------
    TrainingError
        The optimiser ignores a multiplier of the plan.
    """
    symbol = sync_batchnorm.synchronised(plan.running, len(plan.contexts)) if plan.config.sync_batchnorm \
        else plan.running
    module = bind(symbol, plan.label, plan.contexts, (plan.batch_size, *shape[1:]), plan.frozen)
    own, arg_params = set(plan.running.list_arguments()), graph.with_ones(plan.running, arg_params)
    module.init_params(initializer or mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2),
                       arg_params={k: v for k, v in arg_params.items() if k in own},
                       aux_params={k: aux_params[k] for k in plan.running.list_auxiliary_states()}, allow_missing=True)
    workers = workers or Workers()
    if workers.several:
        module.set_params(*_of_first(workers, module))
    config = plan.config
    # `step` sets it for each batch; a different value here would make Module warn.
    rescale = 1.0 / rows_for(plan.batch_size, len(plan.contexts))
    optimizer = mx.optimizer.create(config.optimizer, rescale_grad=rescale, **config.optimizer_options())
    # Set by name: `Module` tells parameter names only to optimisers that it creates itself (apache/mxnet#9511).
    optimizer.set_lr_mult(plan.lr)
    optimizer.set_wd_mult(plan.wd)
    module.init_optimizer(kvstore=None if workers.several else config.kvstore, optimizer=optimizer)
    trainee = Trainee(plan, module, optimizer, _updater_keys(module, plan), workers)
    _check_multipliers(trainee)
    if workers.several:
        arrays = module_arrays(module)
        trainee.exchange = workers.exchange([weights for weights, _ in arrays.values()])
        if workers.asynchronous:
            trainee.exchange.optimise_on_server(
                mx.optimizer.create(config.optimizer, **config.optimizer_options()),
                [(plan.lr[name], plan.wd[name]) for name in arrays])
    return trainee


def _of_first(workers, module):
    """(arg_params, aux_params) of worker 0."""
    both = dict(zip(("arg", "aux"), module.get_params()))
    bundle = checkpoint.of_first(workers, None if workers.rank else checkpoint.Bundle({}, {
        f"{kind}:{name}": value.asnumpy() for kind, values in both.items() for name, value in values.items()}))
    return tuple({name: mx.nd.array(value, dtype=value.dtype) for name, value in bundle.under(f"{kind}:").items()}
                 for kind in both)


def bind(symbol: mx.sym.Symbol, label: str, contexts: list[mx.Context], shape: tuple[int, ...],
         fixed: list[str] | None = None) -> mx.mod.Module:
    """Binds a symbol to devices and shapes; its parameters must be set afterwards.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        It must end in SoftmaxOutput.
    label : str
        Name of its input for labels.
    contexts : list of mx.Context
    shape : tuple of int
        Shape of a batch's data over all devices, (n, channels, height, width).
    fixed : list of str, optional
        Parameters without a gradient. A list, even an empty one, binds for training; None binds for inference only.

    Returns
    -------
    mx.mod.Module
        Its outputs are probabilities and logits. The loss is computed from the logits, because probabilities near 0 or
        1 are too inexact.
    """
    both = mx.sym.Group([symbol, mx.sym.BlockGrad(graph.logits(symbol), name="gluon_ft_logits")])
    module = mx.mod.Module(both, data_names=(DATA,), label_names=(label,), context=contexts,
                           fixed_param_names=fixed)
    rows = rows_for(shape[0], len(contexts))
    module.bind([mx.io.DataDesc(DATA, (rows, *shape[1:]))], [mx.io.DataDesc(label, (rows,))],
                for_training=fixed is not None)
    return module


def rows_for(images: int, devices: int) -> int:
    """The number of rows to which a batch must be padded so that `Module` gives each device at least one.

    Module gives each device except the last round(rows / devices) rows. Of 6 rows, the last of 4 devices gets none.
    """
    rows = max(images, devices)
    while round(rows / devices) * (devices - 1) >= rows:
        rows += 1
    return rows


def _updater_keys(module, plan):
    names, count = module_parameters(module), len(plan.contexts)
    if updates_on_kvstore(module):
        return {name: name for name in names if name in plan.lr}
    return {i * count + k: name for i, name in enumerate(names) for k in range(count) if name in plan.lr}


def _check_multipliers(trainee):
    """Raises TrainingError if the optimiser ignores a multiplier, as it does silently without parameter names."""
    optimizer, plan = trainee.optimizer, trainee.plan
    for key, name in trainee.keys.items():
        rates = rates_of(optimizer, key)
        wanted = (plan.config.lr * plan.lr[name], plan.config.wd * plan.wd[name])
        if any(abs(r - w) > 1e-9 * abs(w) for r, w in zip(rates, wanted)):
            raise TrainingError(f"the optimiser does not use the multipliers of '{name}'", found=rates,
                                expected=f"learning rate and weight decay {wanted}")


def step(trainee: Trainee, batch: Batch, images: int | None = None) -> tuple | None:
    """Makes one update with the mean gradient of a batch.

    Parameters
    ----------
    trainee : Trainee
    batch : Batch
        Without padding, unless it has nothing else; see `Batch.trimmed`.
    images : int, optional
        Of the whole batch, where this is one worker's share.

    Returns
    -------
    (logits, labels) or None
        NDArrays, (n, classes) and float32 (n,); None of a share without images.

    Raises
    ------
    ConfigError
        The batch is larger than `batch_size`.
    """
    _check_size(trainee.plan, batch)
    images = batch.valid if images is None else images
    data, label = filled(batch, rows_for(batch.valid, len(trainee.plan.contexts)), PADDING)
    trainee.optimizer.rescale_grad = 1.0 / images
    with image_form_explained(data, "training"):
        trainee.module.forward_backward(mx.io.DataBatch([data], [label]))
    if trainee.exchange is None:
        trainee.module.update()
    else:
        _update_together(trainee, trainee.exchange, images)
    trainee.updates += 1
    return _logits_and_labels(trainee.module, batch) if batch.valid else None


def _update_together(trainee, exchange, images):
    arrays = module_arrays(trainee.module).values()
    if not trainee.workers.asynchronous:
        for position, (_, gradients) in enumerate(arrays):
            exchange.add_up(position, gradients)
        trainee.module.update()
        return
    exchange.set_rate(trainee.optimizer.learning_rate)
    for position, (weights, gradients) in enumerate(arrays):
        exchange.step(position, gradients, weights, images)
    parameters_have_moved(trainee.module)


def end_of_epoch(trainee: Trainee) -> None:
    """Gets what asynchronous servers have once all workers have ended their epoch."""
    if trainee.exchange is not None and trainee.workers.asynchronous:
        trainee.exchange.get(weights for weights, _ in module_arrays(trainee.module).values())


def predict(module: mx.mod.Module, contexts: list[mx.Context], batch: Batch) -> tuple:
    """Runs a batch in inference mode.

    Parameters
    ----------
    module : mx.mod.Module
        From `bind`, with its parameters set.
    contexts : list of mx.Context
        The devices to which it is bound. A batch that would leave a device without images is padded for the run.
    batch : Batch
        Without padding, see `Batch.trimmed`.

    Returns
    -------
    (logits, labels)
        NDArrays, (n, classes) and float32 (n,), without the padding.
    """
    data, label = filled(batch, rows_for(batch.valid, len(contexts)), PADDING)
    with image_form_explained(data, "the evaluation"):
        module.forward(mx.io.DataBatch([data], [label]), is_train=False)
    return _logits_and_labels(module, batch)


def _logits_and_labels(module, batch):
    logits = module.get_outputs()[1]
    if len(logits) != batch.valid:
        logits = logits[:batch.valid]
    return logits, batch.label.astype("float32").as_in_context(logits.context)


def _check_size(plan, batch):
    if batch.valid > plan.batch_size:
        raise ConfigError("a batch is larger than batch_size", expected=f"at most {plan.batch_size} images",
                          found=batch.valid, remedy="give the batch size of all devices together")


def parameters(trainee: Trainee) -> tuple[dict, dict]:
    """(arg_params, aux_params) as copies on the CPU, after waiting for all operations that change them."""
    settle()
    return trainee.module.get_params()


def synchronised(trainee: Trainee) -> tuple[dict, dict]:
    """(arg_params, aux_params), after averaging the running statistics over devices and workers, and setting them."""
    arg_params, aux_params = parameters(trainee)
    if trainee.workers.several:
        means = trainee.workers.mean([value.asnumpy() for value in aux_params.values()])
        aux_params = {name: mx.nd.array(mean, dtype=mean.dtype) for name, mean in zip(aux_params, means)}
    trainee.module.set_params(arg_params, aux_params)
    return arg_params, aux_params


def saved_state(trainee: Trainee) -> dict:
    """The optimiser's state for a checkpoint."""
    return checkpoint.optimizer_state(trainee.updater, trainee.keys)


def restore(trainee: Trainee, arrays: dict, updates: int) -> None:
    """Restores the optimiser's state from a checkpoint.

    Parameters
    ----------
    trainee : Trainee
        Its parameters must be those of the checkpoint already.
    arrays : dict of str to NDArray
        From `checkpoints.load_optimizer`.
    updates : int
        Number of updates made so far.
    """
    if not trainee.workers.asynchronous:  # whose servers begin with a new optimiser
        weights = {k: v for k, v in parameters(trainee)[0].items() if k in trainee.plan.lr}
        checkpoint.restore_optimizer(trainee.updater, trainee.keys, arrays, weights, updates)
    trainee.updates = updates

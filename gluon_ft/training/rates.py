"""Learning rates by stage and by step, parameters without weight decay, and stages that are unfrozen epoch by epoch."""
from __future__ import annotations

from collections.abc import Sequence

from mxnet.gluon import Block, nn

from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models import freezing, tracing
from gluon_ft.models.stages import Stage, stages
from gluon_ft.runtime.gluon_internals import hyperparameters, parameters_by_path
from gluon_ft.training.config import TrainConfig


def discriminative(net: Block, decay: float, input_shape: tuple[int, ...] | None = None) -> dict[str, float]:
    """Multiplies the `lr_mult` of each stage's parameters by decay ** (number of stages from it up to the output).

    The output keeps its own, the highest stage of the body gets decay, the one below decay ** 2, and so on: Howard and
    Ruder, "ULMFiT", 2018, section 3.2, where each layer has 1 / 2.6 of the rate of the one above it, the classifier
    included. Layers there are stages here (`gluon_ft.stages`), as a ResNet has too many layers for a factor each.

    Called again it starts from the multipliers before the first call, or from what has been set since.

    Parameters
    ----------
    net : HybridBlock
    decay : float
        Above 0 to 1; 1 / 2.6 is ULMFiT's.
    input_shape : tuple of int, optional
        See `gluon_ft.stages`.

    Returns
    -------
    dict of stage name -> factor, from the lowest to the output

    Raises
    ------
    ConfigError
        For a decay out of its range.
    """
    if not 0 < decay <= 1:
        raise ConfigError("layer_decay out of range", expected="above 0 to 1", found=decay)
    found = stages(net, input_shape)
    factors = {stage.name: decay ** (len(found) - 1 - number) for number, stage in enumerate(found)}
    # From the top, so that what stages share learns as fast as in the highest of them.
    seen = set()
    for stage in reversed(found):
        for parameter in stage.parameters().values():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                _multiply(parameter, factors[stage.name])
    return factors


def _multiply(parameter, factor):
    before, ours = getattr(parameter, "_undiscriminated", (parameter.lr_mult, parameter.lr_mult))
    base = before if parameter.lr_mult == ours else parameter.lr_mult
    parameter.lr_mult = base * factor
    parameter._undiscriminated = (base, parameter.lr_mult)


def without_decay(net: Block) -> list[str]:
    """Sets `wd_mult` to 0 for biases and for the scales and shifts of normalisation; their paths.

    These are what is named 'bias', 'gamma' or 'beta', and everything else with one axis. He et al., "Bag of Tricks",
    2019, section 3.1, decay weights only. To be called before training; calling it again changes nothing.
    """
    chosen = {path: parameter for path, parameter in parameters_by_path(net).items()
              if path.endswith(("bias", "gamma", "beta")) or (parameter.shape and len(parameter.shape) == 1)}
    for parameter in chosen.values():
        parameter.wd_mult = 0.0
    return list(chosen)


def unfreezing(net: Block, head_epochs: int = 0, unfreeze: Sequence[int] = (), epochs: int | None = None,
               input_shape: tuple[int, ...] | None = None) -> Plan:
    """A plan of which stages are trained in which epoch; `Plan.apply(epoch)` carries it out.

    Parameters
    ----------
    net : HybridBlock
        As it is to be trained in the end: what is frozen now stays frozen throughout.
    head_epochs : int
        Epochs 1 to head_epochs train the output only, later ones everything that is free now.
    unfreeze : rising epochs, such as (2, 4), instead of `head_epochs`
        At first the output only; at the beginning of each of these epochs one more stage, from the top, of those in
        which anything is free now (gradual unfreezing: Howard and Ruder, "ULMFiT", 2018, section 3.3, one stage an
        epoch). Stages beyond the list stay frozen for the whole run. An epoch that is listed twice frees two.
    epochs : int, optional
        Of the run, to notice an epoch that would never come.
    input_shape : tuple of int, optional
        See `gluon_ft.stages`.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        For both at once, for epochs out of range or order, for more epochs than there are stages, or where nothing of
        the output is free.
    NetworkError
        Where the output is not found.
    """
    unfreeze = tuple(unfreeze)
    if head_epochs and unfreeze:
        raise ConfigError("head_epochs and unfreeze are two ways", expected="one of them",
                          found=f"{head_epochs} and {unfreeze}")
    last = float("inf") if epochs is None else epochs
    if not 0 <= head_epochs <= last:
        raise ConfigError("head_epochs out of range", expected=f"0 to {last}, the epochs", found=head_epochs)
    if list(unfreeze) != sorted(unfreeze) or any(not 1 <= epoch <= last for epoch in unfreeze):
        raise ConfigError("unfreeze out of range or order", expected=f"rising epochs from 1 to {last}", found=unfreeze)
    if not head_epochs and not unfreeze:
        return Plan(net, [], ())
    *body, output = stages(net, input_shape)
    if output.name != "output":
        raise NetworkError("the network's output was not found, so it cannot be trained alone",
                           remedy="set head_epochs to 0 and unfreeze to ()")
    if not _free([output]):
        raise ConfigError("the output is frozen, and it alone would be trained at first", remedy="unfreeze it")
    steps = [[stage] for stage in reversed(body) if _free([stage])]
    if head_epochs:
        return Plan(net, [body], (head_epochs + 1,))
    if len(unfreeze) > len(steps):
        raise ConfigError("unfreeze has more epochs than there are stages to set free", found=unfreeze,
                          expected=f"at most {len(steps)}")
    waiting = [stage for step in steps[len(unfreeze):] for stage in step]
    return Plan(net, [*steps[:len(unfreeze)], *([waiting] if waiting else [])], unfreeze)


def _free(found: list[Stage]) -> bool:
    return any(parameter.grad_req != "null" for stage in found for parameter in stage.parameters().values())


class Plan:
    """Which stages are held in which epoch; made by `unfreezing`.

    parts : lists of stages, in the order in which they are set free; opens : the epoch at whose beginning each is,
    for as many as ever are. Frozen means what `gluon_ft.freeze` does: no gradient, no decay, BatchNorm held.
    """

    def __init__(self, net: Block, parts: list[list[Stage]], opens):
        self.net, self.opens = net, tuple(opens)
        self._parts = [[block for stage in part for block in stage.blocks] for part in parts]
        self._requests = [{p: p.grad_req for block in blocks for p in block.collect_params().values()}
                          for blocks in self._parts]
        self._modes = [{norm: hyperparameters(norm)["use_global_stats"] for block in blocks
                        for _, norm in tracing.blocks(block) if hasattr(norm, "running_mean")}
                       for blocks in self._parts]
        self._held = [False] * len(self._parts)

    def apply(self, epoch: int) -> bool:
        """Freezes and frees for an epoch (from 1), whatever came before; True where anything changed.

        Parameters that are set free have the `grad_req` that they had when the plan was made, and BatchNorm its mode.
        Make the Trainer for the parameters that are free before the first call: it passes over frozen ones, and keeps
        the states of the others.
        """
        return self._hold([epoch < opens for opens in self.opens] + [True] * (len(self._parts) - len(self.opens)))

    def restore(self) -> bool:
        """Everything as it was when the plan was made; True where anything changed."""
        return self._hold([False] * len(self._parts))

    def _hold(self, wanted):
        if wanted == self._held:
            return False
        held = [block for before, after, blocks in zip(self._held, wanted, self._parts) if after and not before
                for block in blocks]
        if held:
            # In one container, since each call looks for cached graphs among all objects.
            together = nn.HybridSequential(prefix="")
            together.add(*held)
            freezing.freeze(together)
        for before, after, requests, modes in zip(self._held, wanted, self._requests, self._modes):
            if before and not after:
                for parameter, request in requests.items():
                    parameter.grad_req = request
                for norm, mode in modes.items():
                    hyperparameters(norm)["use_global_stats"] = mode
        self._held = wanted
        tracing.forget_graphs(self.net)
        return True


class LearningRate:
    """The learning rate of every step of a training, for parameters whose lr_mult is 1.

    Parameters
    ----------
    config : TrainConfig
    train : loader
        Its length says how many steps an epoch has; only a constant rate without warm-up needs none.

    Raises
    ------
    ConfigError
        For a schedule and a loader without a length.
    """

    def __init__(self, config: TrainConfig, train) -> None:
        self.lr, self.schedule, self.epochs = config.lr, config.lr_schedule(), config.epochs
        self.per_epoch: int | None = None
        if hasattr(train, "__len__"):
            self.per_epoch = -(-len(train) // config.accumulate)
        elif config.schedule != "constant" or config.warmup:
            raise ConfigError("a schedule needs the number of batches beforehand", expected="a loader that has a "
                              "length", found=type(train).__name__,
                              remedy="use gluon_ft.loaders.make_loader, or the schedule 'constant'")

    def at(self, epoch: int, step: int) -> float:
        """Of step number `step` (from 0) of an epoch (from 1)."""
        if self.per_epoch is None:
            return self.lr
        return self.lr * self.schedule.multiplier((epoch - 1) * self.per_epoch + step, self.per_epoch, self.epochs)

    def moves_after(self, epoch: int) -> bool:
        """Whether the rate changes after an epoch (from 1)."""
        steps = self.per_epoch
        return steps is not None and not self.schedule.settled(epoch * steps - 1, steps, self.epochs)

"""Finding a learning rate: the range test within one training, and the sweep, one training for each rate."""
from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from gluon_ft.data.batches import Batch, batches
from gluon_ft.engine import choice
from gluon_ft.errors import ConfigError, DataError, TrainingError
from gluon_ft.io import reporter
from gluon_ft.models import tracing
from gluon_ft.runtime import devices, seeds
from gluon_ft.runtime.distributed.workers import KINDS
from gluon_ft.runtime.gluon_internals import (
    deferred_state,
    device_arrays,
    is_deferred,
    is_initialised,
    restore_deferred,
    trainer_attribute,
    values_of,
)
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.labels import LabelCheck, classes_of
from gluon_ft.training.step import Stepper, draws

if TYPE_CHECKING:
    from mxnet.gluon import HybridBlock

# The test ends where the loss is so many times its best (fastai's `lr_find` has 4 as well).
DIVERGED = 4.0
# Steps before which it does not end so, since the first losses are few and differ much.
EARLIEST = 10
# Losses are read so many steps late, so that the device always has work.
BEHIND = 2
# A fall of the curve counts from so many standard errors of its smoothed values on.
CERTAIN = 6.0
# The suggestion is so many times below the rate of the lowest loss.
MARGIN = 10.0
MIN_STEPS, MAX_STEPS = 20, 100_000
# A sweep's highest learning rate.
HIGHEST = 1e4


@dataclass(frozen=True)
class Found:
    """What `find_lr` returns.

    Attributes
    ----------
    rates, losses, smoothed : float64 (n,)
        One for each step that was taken; the loss in nats, before the step.
    suggestion : float or None
        A learning rate; None where the loss did not fall.
    reason : str
        How the suggestion was found, or why there is none.
    stopped : str or None
        Why the test ended before the highest rate, None where it did not.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    reason: str
    stopped: str | None

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {"suggestion": self.suggestion, "reason": self.reason, "stopped": self.stopped,
                "rates": self.rates.tolist(), "losses": self.losses.tolist(), "smoothed": self.smoothed.tolist()}


def find_lr(net: HybridBlock, train: Any, config: TrainConfig | None = None, *, lowest: float = 1e-6,
            highest: float = 10.0, steps: int = 100, ctx: list[mx.Context] | None = None, smoothing: float = 0.9,
            name: str = "find-lr") -> Found:
    """The range test: trains at rates that rise from step to step, and suggests one (Smith, "Cyclical learning rates",
    2017, 3.3).

    The rate is lowest * (highest / lowest) ** (i / (steps - 1)) in step i. The test ends early where the loss, as an
    exponential mean of the steps so far, is 4 times its lowest, or not finite. The suggestion is a tenth of the rate at
    which the smoothed loss is lowest (`suggest`), and may be taken as it is.

    Everything is put back as it was, bit for bit: parameters and running statistics on each device, `grad_req` and
    multipliers, the loader's `epoch`, and the random generators of Python, NumPy and MXNet. One exception: MXNet's
    generator, whose state cannot be read, is left in a new state, which depends only on the old one, where the network
    draws random numbers (Dropout) or has parameters that are not initialised yet. `fit` with a seed is not affected.

    Parameters
    ----------
    net : HybridBlock
        Initialised. What is free is trained; `head_epochs` and `unfreeze` are left out of account.
    train : loader
        As `fit` takes it; passes are repeated until there were enough batches.
    config : TrainConfig
        Everything but the learning rate, its schedule and the number of epochs is as in training: optimiser, decay,
        `layer_decay`, smoothing, mixing, balance, clipping, accumulation, cached frozen features.
    lowest, highest : learning rates, above 0
    steps : 20 to 100,000 steps of the optimiser, from `lowest` to `highest`
    ctx : list of mx.Context, default where the network is
    smoothing : 0 to below 1
        A loss k steps away counts smoothing ** k in the smoothed curve; 0: not smoothed.
    name : str, default 'find-lr'
        Shown in errors and in the progress bar.

    Returns
    -------
    Found

    Raises
    ------
    ConfigError
        For values out of range.
    TrainingError
        For labels outside the output, or a loss that is not finite from the beginning.
    DataError
        For an empty loader.
    """
    config = replace(config or TrainConfig(), epochs=1, schedule="constant", warmup=0.0, head_epochs=0, unfreeze=(),
                     ema=0.0, patience=0)
    check(lowest, highest, steps, smoothing)
    if config.kvstore in KINDS:
        raise ConfigError("a learning rate is found by one process", expected="kvstore 'device' or 'local'",
                          found=f"'{config.kvstore}'", remedy="run it without launch")
    rates = lowest * (highest / lowest) ** (np.arange(steps) / (steps - 1))
    with _kept(net, train, config.seed), choice.using(config.engine):
        contexts = devices.placed(net, ctx)
        losses, stopped = _losses(net, train, config, contexts, rates, smoothing, name)
    rates = rates[:len(losses)]
    smoothed = smooth(losses, smoothing)
    suggestion, reason = suggest(rates, losses, smoothed, smoothing)
    return Found(rates, losses, smoothed, suggestion, reason, stopped)


def smooth(losses: np.ndarray, smoothing: float) -> np.ndarray:
    """Smooths losses by weighted means to both sides, without delay; a loss k steps away counts smoothing ** k.

    Losses after the lowest one count as no more than the highest before it, so that those at rates that break training
    do not hide the fall before.
    """
    least = int(np.argmin(losses))
    losses = np.minimum(losses, np.max(losses[:least + 1]))
    ones = np.ones(len(losses))

    def past(values):
        total = np.empty(len(values))
        last = 0.0
        for i, value in enumerate(values):
            total[i] = last = value + smoothing * last
        return total

    def both_ways(values):
        return past(values) + past(values[::-1])[::-1] - values
    return both_ways(losses) / both_ways(ones)


def suggest(rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray,
            smoothing: float) -> tuple[float | None, str]:
    """Suggests a learning rate: a tenth of the rate at which the smoothed loss is lowest.

    The rule is that of fastai's `lr_find` ('minimum'): at the lowest loss learning is about to break. The other usual
    rule, the steepest fall, was tried here: on small batches it is where the noise is (6e-5 for a MobileNetV2's output
    on photos, 16 a step).

    A loss falls if its smoothed values do so by at least 6 of their standard errors, which the differences of
    neighbouring losses tell: chance alone makes such a fall in about one test of a hundred
    (`tests/training/test_lr_finder.py` draws it).

    Parameters
    ----------
    rates : float (n,)
        The rate of each step, rising.
    losses, smoothed : float (n,)
        The loss at each step, and its smoothed curve.
    smoothing : float, 0 to below 1
        That `smoothed` was made with.

    Returns
    -------
    (rate, reason)
        Rate with two digits; None where the loss does not fall, or is lowest at the highest rate. The reason is for the
        reader.
    """
    lowest = int(np.argmin(smoothed))
    # Of a mean whose weights fall by `smoothing` to either side.
    share = math.sqrt((1 - smoothing) * (1 + smoothing ** 2) / (1 + smoothing) ** 3)
    noise = np.std(np.diff(losses[:max(lowest + 1, MIN_STEPS)])) / math.sqrt(2) * share
    if lowest < 2 or smoothed[:lowest].max() - smoothed[lowest] <= CERTAIN * noise:
        return None, (f"the loss does not fall by more than chance between {rates[0]:.1e} and {rates[-1]:.1e}: try "
                      "a larger batch size (--batch-size), more steps or other rates")
    if lowest == len(rates) - 1:
        return None, f"the loss still falls at {rates[-1]:.1e}, the highest rate: go higher"
    return float(f"{rates[lowest] / MARGIN:.1e}"), f"a tenth of {rates[lowest]:.1e}, at which the loss is lowest"


class _Rising(Stepper):
    """Takes step number i at the i-th of the given rates."""

    def __init__(self, rates, *arguments) -> None:
        super().__init__(*arguments)
        self.rates = rates

    def rate(self, epoch: int, step: int) -> float:
        return float(self.rates[step])


def _losses(net, train, config, contexts, rates, smoothing, name):
    """(losses of the steps taken, why they are fewer than the rates or None)."""
    classes = classes_of(net)
    labels = LabelCheck(classes, train, "the training set", name=name)
    stepper = _Rising(rates, net, config, contexts, train, None, classes)
    watch, waiting = _Watch(smoothing), []
    wanted = len(rates) * config.accumulate
    bar = reporter.progress(total=len(rates), desc=name, unit="step")
    with contextlib.ExitStack() as stack:
        stack.callback(stepper.finish)
        stepper.begin(1)
        stream = stack.enter_context(contextlib.closing(_endless(stepper.running.train)))
        stack.enter_context(bar)
        for position, batch in zip(range(wanted), stream):
            labels.check(batch, position + 1)
            waiting.append([loss.sum() for _, _, loss in stepper.step(batch, 1, position)] + [len(batch.label)])
            if (position + 1) % config.accumulate == 0:
                bar.update()
                if len(waiting) > BEHIND * config.accumulate and watch.ends(_mean(waiting, config.accumulate)):
                    break
        while waiting and not watch.reason:
            watch.ends(_mean(waiting, config.accumulate))
    if len(watch.losses) < MIN_STEPS // 2:
        raise TrainingError(f"the range test ended after {len(watch.losses)} of {len(rates)} steps",
                            expected="a finite loss that falls at first", found=watch.reason,
                            remedy=f"begin lower than {rates[0]:g}, or look for bad images and labels")
    reason = f"{watch.reason} at {rates[len(watch.losses) - 1]:.1e}" if watch.reason else None
    return np.array(watch.losses), reason


def _mean(waiting, accumulate) -> float:
    """The mean loss of the oldest step, whose batches are taken out of `waiting`."""
    total = count = 0.0
    for *sums, number in waiting[:accumulate]:
        total += sum(float(value.asscalar()) for value in sums)
        count += number
    del waiting[:accumulate]
    return total / count


class _Watch:
    """Collects finite losses and says when to end."""

    def __init__(self, smoothing):
        self.smoothing, self.losses, self.reason = smoothing, [], None
        self._sum, self._weight, self._best = 0.0, 0.0, math.inf

    def ends(self, loss) -> bool:
        if not math.isfinite(loss):
            self.reason = f"the loss became {loss}"
            return True
        self.losses.append(loss)
        self._sum, self._weight = self.smoothing * self._sum + loss, self.smoothing * self._weight + 1
        mean = self._sum / self._weight
        if len(self.losses) > EARLIEST and mean > DIVERGED * self._best:
            self.reason = f"the loss was {DIVERGED:g} times its lowest"
            return True
        self._best = min(self._best, mean)
        return False


def _endless(train) -> Generator[Batch, None, None]:
    while True:
        empty = True
        with contextlib.closing(batches(train)) as stream:
            for batch in stream:
                empty = False
                yield batch.trimmed()
        if empty:
            raise DataError("no images to find a learning rate with", expected="at least one", found="an empty loader")


@contextlib.contextmanager
def _kept(net, train, seed):
    """Puts everything back at the end; see `find_lr`."""
    parameters = {id(p): p for p in net.collect_params().values()}.values()
    kept = [_KeptParameter(parameter) for parameter in parameters]
    loader = {key: getattr(train, key) for key in ("epoch", "start", "balanced", "views") if hasattr(train, key)}
    states = random.getstate(), np.random.get_state()
    drawing = draws(net) or any(is_deferred(parameter) for parameter in parameters)
    after = int(mx.nd.random.randint(0, 2 ** 31 - 1, shape=1).asscalar()) if drawing else None
    if drawing and seed is not None:
        seeds.seed_all(seed)
    try:
        yield
    finally:
        for one in kept:
            one.restore()
        tracing.forget_graphs(net)
        for key, value in loader.items():
            setattr(train, key, value)
        random.setstate(states[0])
        np.random.set_state(states[1])
        if drawing:
            mx.random.seed(after)


class _KeptParameter:
    """One parameter: its values on each device, or that it has none yet, and its settings."""

    ATTRIBUTES = ("lr_mult", "wd_mult", "_undiscriminated", trainer_attribute())

    def __init__(self, parameter):
        self.parameter, self.grad_req = parameter, parameter.grad_req
        self.attributes = {key: getattr(parameter, key) for key in self.ATTRIBUTES if hasattr(parameter, key)}
        self.deferred = deferred_state(parameter)
        self.values = None if not is_initialised(parameter) else [array.copy() for array in values_of(parameter)]

    def restore(self):
        parameter = self.parameter
        if self.values is None:
            # Gluon has no way back to a shape that is not known yet.
            restore_deferred(parameter, self.deferred)
        elif [array.context for array in self.values] != parameter.list_ctx():
            parameter.reset_ctx([array.context for array in self.values])
        for array, value in zip(device_arrays(parameter) if self.values else (), self.values or ()):
            value.copyto(array)
        parameter.grad_req = self.grad_req
        for key in self.ATTRIBUTES:
            if key in self.attributes:
                setattr(parameter, key, self.attributes[key])
            elif hasattr(parameter, key):
                delattr(parameter, key)


def check(lowest: float, highest: float, steps: int, smoothing: float = 0.9) -> None:
    """Makes sure of the range test's options.

    Parameters
    ----------
    lowest, highest : float
        Learning rates, 0 < lowest < highest.
    steps : int
        20 to 100,000.
    smoothing : float, 0 to below 1, default 0.9

    Raises
    ------
    ConfigError
        A value is out of its range.
    """
    if not (0 < lowest < highest < math.inf):
        raise ConfigError("rates out of range", expected="0 < lowest < highest", found=f"{lowest:g} and {highest:g}")
    if isinstance(steps, bool) or not isinstance(steps, int) or not MIN_STEPS <= steps <= MAX_STEPS:
        raise ConfigError("steps out of range", expected=f"{MIN_STEPS} to {MAX_STEPS}", found=steps)
    if not 0 <= smoothing < 1:
        raise ConfigError("smoothing out of range", expected="0 to below 1", found=smoothing)


def rising(start: float) -> Iterator[float]:
    """`start`, then 1 and 3 times the powers of ten above it (0.01, 0.03, 0.1, 0.3, ...), to `HIGHEST` at most."""
    if not 0 < start <= HIGHEST:
        raise ConfigError("a sweep's first rate is out of range", expected=f"above 0, at most {HIGHEST:g}", found=start)
    yield start
    for exponent in range(math.floor(math.log10(start)), math.ceil(math.log10(HIGHEST)) + 1):
        for digit in (1, 3):
            rate = float(f"{digit}e{exponent}")
            if start * (1 + 1e-9) < rate <= HIGHEST:
                yield rate


def chance_accuracy_bound(labels: np.ndarray | Sequence[int]) -> float:
    """An upper bound of the accuracy of a network that learnt nothing.

    It is that of always naming the most frequent class, plus two standard errors; about one in forty such networks is
    above it (normal approximation of the binomial).

    Parameters
    ----------
    labels : int (n,)
        Of the validation images.
    """
    labels = np.asarray(labels)
    share = np.bincount(labels).max() / len(labels)
    return float(share + 2 * math.sqrt(share * (1 - share) / len(labels)))


def sweep(train_at: Callable[[float], list[dict]], start: float, chance: float) -> tuple[list[dict], list[dict]]:
    """The sweep: trains at rising rates until one breaks, that one included.

    Parameters
    ----------
    train_at : callable(lr) -> list of rows, one a seed, with `validation_accuracy` (0..1)
    start : float
        The first rate.
    chance : float
        Accuracy that is no better than chance, see `chance_accuracy_bound`.

    Returns
    -------
    rates : one dict a rate: `lr`, `outcome` ('learns'; 'too low': no better than chance, and no lower rate was
        either; 'breaks': no better than chance after a lower rate learnt; 'not finite'), and `median`, `min`, `max`
        of the seeds' validation accuracy, None where the loss was not finite. The last one is 'breaks' or 'not finite',
        or the highest below `HIGHEST`.
    rows : those of `train_at`, all together; none of a rate that was not finite

    Raises
    ------
    What `train_at` raises, but for the TrainingError of a loss that is not finite after the first rate.
    """
    rates: list[dict] = []
    rows: list[dict] = []
    for lr in rising(start):
        try:
            found = train_at(lr)
        except TrainingError as error:
            # What `metrics.Meter` raises where a loss is NaN or infinite; any other is not the rate's doing.
            if error.expected != "a finite loss" or not rows:
                raise
            rates.append({"lr": lr, "outcome": "not finite", "median": None, "min": None, "max": None})
            break
        rows += found
        values = [row["validation_accuracy"] for row in found]
        median, learnt = float(np.median(values)), any(rate["outcome"] == "learns" for rate in rates)
        outcome = "learns" if median > chance else "breaks" if learnt else "too low"
        rates.append({"lr": lr, "outcome": outcome, "median": median, "min": min(values), "max": max(values)})
        if outcome == "breaks":
            break
    return rates, rows

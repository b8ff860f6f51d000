"""A small pretrained network made on the spot from drawings, for quick runs where no weights are at hand."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import mxnet as mx
import numpy as np

import gluon_ft
from gluon_ft.data import loader
from gluon_ft.data.datasets import drawings
from gluon_ft.data.images.augment import Augmentation
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import DownloadError
from gluon_ft.finetune.choice import best_at_hand
from gluon_ft.io import locks, paths, reporter
from gluon_ft.models import registry
from gluon_ft.models.pretrained import write_params
from gluon_ft.models.spec import resolve
from gluon_ft.runtime import seeds
from gluon_ft.runtime.gluon_internals import array_of, parameters_by_path
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit
from gluon_ft.weights import catalog, store
from gluon_ft.weights.card import Card
from gluon_ft.weights.catalog import Row

# The cheapest step on small images of the registry's networks: 0.16 s of processor time for 32 of 64 x 64 pixels.
BACKBONE = "mobilenet0.25"
SIZE = 72  # of the drawings, pixels
PREPROCESSING = Preprocessing(size=64, resize=SIZE)
EACH = 48
# Drawings are shown from no less than 40% of their area: a smaller part is no longer anything.
AUGMENTATION = Augmentation(scale=(0.4, 1.0))
CONFIG = TrainConfig(epochs=8, lr=0.1, momentum=0.9, wd=1e-4, schedule="one-cycle", top_k=0)
SEED = 1000  # far from the seeds of those who draw pictures to train on


def pictures(names: Sequence[str], each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws pictures of things, class after class.

    Parameters
    ----------
    names : sequence of str
        Of `drawings.THINGS`; one that begins with 'not-' stands for everything else but cat and dog.
    each : int
        Drawings of every name.
    seed : int

    Returns
    -------
    (images, labels)
        uint8 (n, 72, 72, 3) in RGB, and int64 (n,), positions in `names`.
    """
    things, labels = [], []
    for label, name in enumerate(names):
        kinds = [name] if name in drawings.THINGS else [
            thing for thing in drawings.THINGS if f"not-{thing}" != name and thing not in ("cat", "dog")]
        things += [kinds[i % len(kinds)] for i in range(each)]
        labels += [label] * each
    return drawings.draw(things, seed, size=SIZE), np.array(labels)


def weights() -> Path:
    """Parameters of `BACKBONE` that tells the things of `drawings.THINGS` apart, with class names and preprocessing.

    Trained once (some five seconds) and kept in the cache. `pretrained_net(BACKBONE, weights())` and the like take it.
    """
    key = hashlib.sha256(repr((CONFIG, AUGMENTATION, EACH, SEED, gluon_ft.__version__)).encode()).hexdigest()[:16]
    kept = paths.cache_home() / "demo_weights" / f"{BACKBONE}-{key}.params"
    paths.made(kept.parent)
    with locks.acquire(locks.beside(kept), waiting="another process is training the network of drawings; waiting"):
        if not kept.is_file():
            _train(kept)
    return kept


def _train(kept: Path) -> None:
    classes = list(drawings.THINGS)
    seeds.seed_all(SEED)
    net = registry.build(BACKBONE, classes=len(classes))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    train = loader.make_loader(pictures(classes, EACH, SEED), preprocessing=PREPROCESSING, train=True,
                               batch_size=32, seed=SEED, augment=AUGMENTATION, classes=classes, cache="memory")
    fit(net, train, config=CONFIG, name="network of drawings")
    params = {path: array_of(parameter) for path, parameter in parameters_by_path(net).items()}
    write_params(kept, params, Card(BACKBONE, PREPROCESSING, classes, "drawings", notes=(
        "not a network of photos: trained on generated drawings, for quick runs",)))


def choose(backbone: str | None, pretrained: str | None, default: str, drawn: bool) -> tuple[str, str | bool]:
    """What a recipe's --backbone and --pretrained mean, as `fine_tune_net` takes them.

    Where neither is given, and the weights of the default are not here, they are fetched; where that fails, the best
    weights at hand for photos take their place, with a notice.

    Parameters
    ----------
    backbone : str or None
        A name of the registry.
    pretrained : str or None
        A tag of the catalog or a file for that backbone, 'BACKBONE:TAG', or None for the preferred weights.
    default : str
        The backbone where neither names one.
    drawn : bool
        Whether the images are drawings; where nothing is named either, these weights of drawings are taken.

    Returns
    -------
    (backbone, pretrained)

    Raises
    ------
    NetworkError
        For an unknown backbone.
    ConfigError
        Where two backbones are named.
    WeightsError
        For weights that do not exist.
    """
    if not backbone and not pretrained:
        if drawn:
            backbone, pretrained = BACKBONE, str(weights())
        elif instead := _instead_of(catalog.find(default)):
            return instead.backbone, instead.tag
    if backbone:
        registry.get(backbone)
    found = resolve(backbone or None, pretrained or True, default=default)
    registry.get(found.backbone)
    if found.preferred:
        return found.backbone, True
    return found.backbone, found.weights.tag if isinstance(found.weights, Row) else str(found.weights)


def _instead_of(row: Row) -> Row | None:
    """The best weights at hand for photos, where those of `row` are neither here nor can be fetched."""
    here = None if store.is_here(row) else best_at_hand(None, gpu=False)
    if here is None:
        return None
    try:
        store.get(row)
    except DownloadError:
        reporter.notice(f"weights {row.name} cannot be fetched; those at hand of {here.name} take their place")
        return here
    return None

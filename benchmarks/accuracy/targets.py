"""Reads targets.toml: what is to be reached, with which settings, on which data, and what that needs."""
from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from benchmarks.runner import ROOT, SHARED, tomllib
from gluon_ft.errors import ConfigError, near

FILE = Path(__file__).with_name("targets.toml")
KINDS = ("packed", "folders", "folder", "digits")
OVER = ("each", "median")


@dataclass(frozen=True)
class Data:
    """The images of a target.

    kind : 'packed' (a folder of classes that the recipe splits and packs), 'folders' (train and test), 'folder' (one
    folder of classes), 'digits'; path : below ../shared/data, None where it is bundled or fetched; catalog : name in
    gluon_ft's catalog of data; classes, images : counts; sha256 : `identity.fingerprint`, None where the data was
    never here; get : how to get it.
    """

    name: str
    kind: str
    images: int
    classes: int
    path: str | None = None
    catalog: str | None = None
    sha256: str | None = None
    get: str = ""

    def here(self) -> Path | None:
        """Where it is: ../shared/data, or the catalog's cache; None where it is nowhere."""
        if self.path is not None:
            folder = SHARED / self.path
            return folder if folder.exists() else None
        if self.catalog is None:
            return None
        from gluon_ft.data.datasets import catalog

        return catalog.path(self.catalog)

    @property
    def bundled(self) -> bool:
        """It comes with a package that is installed anyway."""
        return self.path is None and self.catalog is None


@dataclass(frozen=True)
class Check:
    """Bounds on both sides of one quantity of one row.

    row : name in the run's rows; quantity : train_ or validation_ accuracy or loss; low, high : inclusive; over :
    'each' seed or the 'median' of them; epoch : of the run's metrics, None for the end; seed : only this one (for
    figures that depend on the seed more than on anything else); ahead_of : instead of bounds, another row that this
    one must exceed in each epoch from `from_epoch` on, in each seed; published : the figure, as text.
    """

    row: str
    quantity: str = "validation_accuracy"
    low: float | None = None
    high: float | None = None
    over: str = "each"
    epoch: int | None = None
    seed: int | None = None
    ahead_of: str | None = None
    from_epoch: int = 1
    published: str = ""

    @property
    def label(self) -> str:
        """'fine-tuned, validation accuracy, epoch 1'."""
        parts = [self.row, self.quantity.replace("_", " ")]
        parts += [f"epoch {self.epoch}"] if self.epoch else []
        return ", ".join(parts + ([f"seed {self.seed}"] if self.seed is not None else []))


@dataclass(frozen=True)
class Target:
    """One row of the table; `config` holds what the run's config.json must say, `options` the command line."""

    id: str
    title: str
    source: str
    script: str
    data: Data
    device: str
    minutes: float
    seeds: int
    checks: tuple[Check, ...]
    weights: str | None = None
    options: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    quick_seeds: int = 1
    note: str = ""

    @property
    def gpu(self) -> bool:
        """It needs GPUs."""
        return self.device.startswith("gpu")

    def command(self, seeds: int) -> list[str]:
        """The script's options, without interpreter, data and run folder."""
        words = []
        for name, value in self.options.items():
            values = value if isinstance(value, list) else [value]
            for one in values:
                words += [f"--{name}"] if one is True else [f"--{name}", str(one)]
        return [*words, "--seeds", str(seeds)]


def load(path=FILE) -> list[Target]:
    """Every target, in the file's order. ConfigError for an unknown or missing key, naming the target."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("targets cannot be read", path=path, found=error) from error
    sets = {name: _made(Data, {"name": name, **values}, f"data '{name}'", path)
            for name, values in content.get("data", {}).items()}
    found = [_target(dict(values), sets, path) for values in content.get("target", [])]
    twice = {t.id for t in found if [o.id for o in found].count(t.id) > 1}
    if twice or not found:
        raise ConfigError(f"target '{min(twice)}' is there twice" if twice else "no targets", path=path)
    return found


def _target(values, sets, path):
    what = f"target '{values.get('id', '?')}'"
    if values.get("data") not in sets:
        raise ConfigError(f"{what}: no data '{values.get('data')}'", path=path, remedy=near(values.get("data"), sets))
    values["data"] = sets[values["data"]]
    values["checks"] = tuple(_check(check, what, path) for check in values.get("checks", []))
    if not values["checks"]:
        raise ConfigError(f"{what} checks nothing", path=path, expected="at least one of [[target.checks]]")
    return _made(Target, values, what, path)


def _check(values, what, path):
    check = _made(Check, values, what, path)
    bounded = check.low is not None and check.high is not None and check.low <= check.high
    if bounded == (check.ahead_of is not None) or check.over not in OVER:
        raise ConfigError(f"{what}: check of '{check.row}' is not complete", path=path,
                          expected="low and high in this order, or ahead_of; over 'each' or 'median'")
    return check


def _made(kind, values, what, path):
    known = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(f"{what}: unknown key '{key}'", path=path, remedy=near(key, known))
    try:
        made = kind(**values)
    except TypeError as error:
        raise ConfigError(f"{what} is not complete", path=path, found=str(error).partition(") ")[2]) from None
    if kind is Data and made.kind not in KINDS:
        raise ConfigError(f"{what}: no kind '{made.kind}'", path=path, remedy=near(made.kind, KINDS))
    return made


def choose(found: list[Target], only) -> list[Target]:
    """Those called `only` (all where it is empty). ConfigError with the near names for an unknown one."""
    names = [t.id for t in found]
    for name in only:
        if name not in names:
            raise ConfigError(f"no target '{name}'", remedy=near(name, names))
    return [t for t in found if not only or t.id in only]


def missing(target: Target, root: Path = ROOT) -> list[str]:
    """What is not here to run a target, each with how to get it; nothing is fetched or run."""
    lacking = []
    if not (root / target.script).is_file():
        lacking.append(f"{target.script} is not written yet")
    if target.gpu:
        lacking += _devices(target.device)
    if not target.data.bundled and target.data.here() is None:
        where = f"../shared/data/{target.data.path}" if target.data.path else target.data.name
        lacking.append(f"data {where}: {target.data.get}")
    if target.weights and not _weights_here(target.weights):
        lacking.append(f"weights {target.weights}: gluon-ft weights get {target.weights}, or put the file into the "
                       "folder that GLUON_FT_WEIGHTS names")
    return lacking


def _devices(device) -> list[str]:
    import mxnet as mx

    from gluon_ft import contexts

    try:
        contexts(device)
    except ConfigError:
        needed = device.partition(":")[2] or "1"
        return [f"{needed} GPUs of compute capability 5.0 to 8.6, {mx.context.num_gpus()} here: run this with "
                "mxnet-cu112 on a machine that has them"]
    return []


def _weights_here(name) -> bool:
    from gluon_ft.weights import catalog, store

    # The weights beside the data need no setting up: `environment` points to them.
    with_shared = os.pathsep.join(filter(None, [os.environ.get(store.VARIABLE), shared_weights()]))
    before = os.environ.get(store.VARIABLE)
    os.environ[store.VARIABLE] = with_shared
    try:
        return store.is_here(catalog.find(name))
    finally:
        if before is None:
            del os.environ[store.VARIABLE]
        else:
            os.environ[store.VARIABLE] = before


def shared_weights() -> str:
    """The folder of weights beside the project, '' where there is none."""
    folder = SHARED / "weights"
    return str(folder) if folder.is_dir() else ""


def environment() -> dict:
    """Environment variables for a target's process: also looks for weights in ../shared/data/weights."""
    known = [os.environ.get("GLUON_FT_WEIGHTS"), shared_weights()]
    folders = os.pathsep.join(dict.fromkeys(f for f in known if f))
    return {**os.environ, "MPLBACKEND": "Agg", **({"GLUON_FT_WEIGHTS": folders} if folders else {})}

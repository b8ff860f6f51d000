"""Public data sets by name: lists, fetches, verifies and unpacks them, and sorts images into class folders."""
from __future__ import annotations

import functools
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from gluon_ft.data.datasets import cifar
from gluon_ft.errors import ConfigError, DataError, DownloadError, near
from gluon_ft.io import atomic, documents
from gluon_ft.io.archives import unpack
from gluon_ft.io.checksums import Checksums
from gluon_ft.io.downloads import fetch, locked
from gluon_ft.io.paths import AnyPath, cache_home

_TABLE = Path(__file__).with_name("catalog.toml")


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes
    ----------
    name : str
    addresses : tuple of str
        Download URLs in the order in which they are tried; none if the user has to fetch the file by hand.
    checksums : Checksums
        As published.
    archive : bool
        Whether it is unpacked.
    unverified : bool
        True if the file was not fetched when its entry was written, so that its address and checksums are untested.
    """

    name: str
    addresses: tuple[str, ...] = ()
    checksums: Checksums = field(default_factory=Checksums)
    archive: bool = False
    unverified: bool = False


@dataclass(frozen=True)
class DataSet:
    """An entry of the catalog.

    Attributes
    ----------
    name, title : str
    layout : str
        'folders' (a folder for each class, or train and test with class folders), 'idx' (MNIST's format, gzipped),
        'cifar-binary' or 'prefix' (`cat.0.jpg`). The images of the last two are sorted into class folders.
    folder : str
        Where the images are inside the unpacked data; '.' for its top.
    images, classes : int
        How many there are.
    licence, home : str
        The licence, and the address of the data set's own page.
    files : tuple of DataFile
    max_bytes, max_files : int
        Limits for unpacking.
    note : str
        Shown to the user.
    """

    name: str
    title: str
    layout: str
    folder: str
    images: int
    classes: int
    licence: str
    home: str
    files: tuple[DataFile, ...]
    max_bytes: int
    max_files: int
    note: str = ""

    @property
    def unverified(self) -> bool:
        """Whether any of its files is `unverified`, see `DataFile`."""
        return any(file.unverified for file in self.files)

    @property
    def by_hand(self) -> bool:
        """Whether one of its files has no address, so that the user has to fetch it."""
        return any(not file.addresses for file in self.files)


@functools.cache
def _rows() -> dict[str, DataSet]:
    table = documents.read_toml(_TABLE)
    return {name: DataSet(name=name, files=tuple(_file(f) for f in row.pop("files")), **row)
            for name, row in table.items()}


def _file(row):
    hashes = {kind: row.pop(kind) for kind in ("sha256", "sha1", "md5", "size") if kind in row}
    return DataFile(addresses=tuple(row.pop("addresses")), checksums=Checksums(**hashes), **row)


def datasets() -> list[DataSet]:
    """All data sets, sorted by name."""
    return [_rows()[name] for name in sorted(_rows())]


def find(name: str) -> DataSet:
    """The data set called `name`; for an unknown name, ConfigError with similar names."""
    if name not in _rows():
        raise ConfigError(f"no data set '{name}' in the catalog", remedy=near(name, _rows()))
    return _rows()[name]


def where(name: str, to: AnyPath | None = None) -> Path:
    """The folder in which `get` puts a data set: `<to>/<name>`, or by default `<cache>/data/<name>`."""
    return (cache_home() / "data" if to is None else Path(to).absolute()) / find(name).name


def path(name: str, to: AnyPath | None = None) -> Path | None:
    """The folder with the images of a data set that was fetched already, else None."""
    folder = where(name, to)
    return (folder / find(name).folder) if folder.is_dir() else None


def get(name: str, *, source: AnyPath | None = None, to: AnyPath | None = None, progress: bool = True) -> Path:
    """Fetches and unpacks a data set unless it is there already; returns the folder with its images.

    Parameters
    ----------
    name : str
        One of `datasets()`.
    source : path-like, optional
        A local copy to use in place of a download: the file, or a folder with the files under their published names.
        Its checksums are verified like a download's. The copy is not changed.
    to : path-like, optional
        Put the data in `<to>/<name>`; default `<cache>/data/<name>`.
    progress : bool, default True
        Show a progress bar for each download.

    Returns
    -------
    Path
        The folder with the images. It appears only when it is complete; of several processes that ask for the same
        data set one prepares it and the others wait.

    Raises
    ------
    ConfigError
        The name is unknown.
    DownloadError
        No address works. The error says where to put a file that was fetched by hand.
    DataError
        A local copy or an archive is not as published, or cannot be unpacked.
    """
    data = find(name)
    folder = where(name, to)
    if folder.is_dir():
        return folder / data.folder
    with locked(folder):
        if not folder.is_dir():
            atomic.remove_leftovers(folder)
            files = [_obtain(data, file, source, progress) for file in data.files]
            _prepare(data, files, folder)
            for file, got in zip(data.files, files):
                if got == _download(data, file):
                    got.unlink()
    return folder / data.folder


def _download(data, file):
    return cache_home() / "downloads" / data.name / file.name


def _obtain(data, file, source, progress):
    if source is not None:
        return _copy_at_hand(data, file, Path(source))
    target = _download(data, file)
    if not file.addresses and not target.is_file():
        raise DownloadError(f"{data.name} can only be fetched by hand", expected=f"{file.name} from {data.home}",
                            remedy=f"put it into {target.parent}, or give it with --from")
    return fetch(file.addresses, target, progress=progress, **vars(file.checksums))


def _copy_at_hand(data, file, source):
    if source.is_dir():
        source = source / file.name
    elif len(data.files) > 1:
        raise DataError(f"{data.name} has {len(data.files)} files", path=source,
                        expected="a folder with " + ", ".join(f.name for f in data.files))
    if not source.is_file():
        raise DataError("no such file", path=source, expected=f"{file.name} of {data.name}")
    fault = file.checksums.fault(source)
    if fault:
        raise DataError(f"not {file.name} as published", path=source, found=fault,
                        remedy=f"get it from {(*file.addresses, data.home)[0]}")
    return source


def _prepare(data, files, folder):
    """Unpacks the files and sorts the images in a temporary folder, then renames it to `folder`."""
    try:
        with atomic.replacing_folder(folder) as temporary:
            if any(file.archive for file in data.files):
                unpack(files[0], temporary, max_bytes=data.max_bytes, max_files=data.max_files)
            else:
                for file, got in zip(data.files, files):
                    shutil.copyfile(got, temporary / file.name)
            _LAYOUTS[data.layout](data, temporary)
            if not (temporary / data.folder).is_dir():
                raise DataError(f"not {data.name}", path=files[0], expected=f"a folder {data.folder} in it",
                                found=", ".join(sorted(p.name for p in temporary.iterdir())[:5]) or "nothing")
    except OSError as error:
        raise DataError("cannot be prepared", path=folder, found=error.strerror or error,
                        remedy="free some space, or choose another folder with --to") from error


def _keep_layout(_data, _folder):
    pass


def _from_cifar(_data, folder):
    batches = folder / "cifar-10-batches-bin"
    cifar.write_folders(batches, folder)
    shutil.rmtree(batches)


def _by_prefix(data, folder):
    """Moves `train/cat.0.jpg` to `cat/cat.0.jpg`; if Kaggle's outer archive was given, unpacks its train.zip first."""
    inner = folder / data.files[0].name
    if inner.is_file():
        unpack(inner, folder / "inner", max_bytes=data.max_bytes, max_files=data.max_files)
        for outer in [p for p in folder.iterdir() if p.is_file()]:
            outer.unlink()
    images = [p for p in sorted(folder.rglob("*.jpg")) if p.name.count(".") == 2]
    if not images:
        raise DataError(f"not {data.name}", expected="images called cat.0.jpg, dog.0.jpg, ...", found="none in it")
    before = [p for p in folder.iterdir() if p.is_dir()]
    for image in images:
        target = folder / image.name.split(".")[0]
        target.mkdir(exist_ok=True)
        os.replace(image, target / image.name)
    for old in before:
        if old.name not in {image.name.split(".")[0] for image in images}:
            shutil.rmtree(old)


_LAYOUTS = {"folders": _keep_layout, "idx": _keep_layout, "cifar-binary": _from_cifar, "prefix": _by_prefix}

"""Caltech-256: unpacks its archive once, and handles its folder of clutter."""
from __future__ import annotations

from pathlib import Path

from gluon_ft.data.datasets import catalog
from gluon_ft.data.sources import folders
from gluon_ft.errors import ConfigError
from gluon_ft.io import paths
from gluon_ft.io.archives import unpack
from gluon_ft.io.checksums import sha256_of
from gluon_ft.io.paths import AnyPath


def image_folder(data: AnyPath | None = None) -> Path:
    """Finds the folder that contains the class folders, fetching and unpacking the data set if needed.

    `data` may be this folder, a folder that contains only it, or an archive of it, which is unpacked once into the
    cache; None stands for the published archive. Raises DownloadError if that cannot be fetched, and DataError if an
    archive cannot be unpacked.
    """
    folder = catalog.get("caltech-256") if data is None else Path(data)
    if folder.is_file():
        kept = paths.cache_home() / "data" / f"caltech256-{sha256_of(folder)[:16]}"
        paths.made(kept.parent)
        folder = kept if kept.is_dir() else unpack(folder, kept)
    inside = list(folder.iterdir()) if folder.is_dir() else []
    return inside[0] if len(inside) == 1 and any(p.is_dir() for p in inside[0].glob("*")) else folder


def clutter_folders(images: AnyPath, choice: str | None) -> list[str]:
    """The classes to leave out: 257.clutter if `choice` is 'drop', none if it is 'keep'.

    Raises ConfigError if the folder has a clutter class and `choice` is None.
    """
    classes = folders.scan(images).class_names or []
    found = [name for name in classes if name.endswith("clutter")]
    if found and choice is None:
        raise ConfigError(f"{found[0]} holds pictures of no category", path=images, found=f"{len(classes)} folders",
                          remedy=f"say --clutter keep ({len(classes)} classes) or --clutter drop ({len(classes) - 1})")
    return found if choice == "drop" else []

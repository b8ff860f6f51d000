"""`pack`: packs the images of a list into records (`.rec`, `.idx`, manifest) that MXNet's own readers accept."""
from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gluon_ft.data import lists, tables
from gluon_ft.data.images import decode, header
from gluon_ft.data.lists import without_suffix
from gluon_ft.data.records import framing, manifest, pool
from gluon_ft.data.records.record_file import MAX_SHARDS
from gluon_ft.data.records.writer import Target, with_suffix
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.io import reporter
from gluon_ft.io.paths import AnyPath

DEFAULT_QUALITY = {".jpg": 95, ".png": 3}  # im2rec's for JPEG, OpenCV's for PNG
MOST_SHOWN = 20  # unreadable images named on the terminal; the report file has all of them
_CHUNK_IMAGES, _CHUNK_BYTES = 8, 4 << 20  # a worker's task ends at whichever limit is reached first


@dataclass(frozen=True)
class Skipped:
    """An image of the list that was left out because it cannot be read, and why."""

    index: int
    path: str
    reason: str


@dataclass
class Packed:
    """A `.rec` that was written.

    Attributes
    ----------
    rec : Path
    records, bytes : int
    skipped : list of Skipped
        Images that were left out.
    not_upright : int
        Number of images stored unchanged with an EXIF rotation, which readers of the records may ignore.
    """

    rec: Path
    records: int = 0
    bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    not_upright: int = 0


class UnreadableImages(DataError):
    """Some images cannot be read, so nothing was packed. `skipped` and the file `report` list all of them."""

    def __init__(self, skipped, total, lst, report):
        self.skipped, self.report = skipped, report
        first = skipped[0]
        super().__init__(f"{len(skipped)} of {total} images cannot be read, the first is {first.path}: {first.reason}",
                         path=lst, remedy=f"all are listed in {report}; mend or remove them, or leave them out with "
                         "--on-error skip; nothing was packed")


def pack(lst: AnyPath, root: AnyPath, out_prefix: AnyPath | None = None, *, resize: int = 0, center_crop: bool = False,
         quality: int | None = None, color: int = 1, encoding: str = ".jpg", pass_through: bool = False,
         max_megapixels: float = header.MAX_MEGAPIXELS, workers: int | None = 1, shards: int = 1,
         shard: int | None = None, on_error: str = "fatal", allow_outside: bool = False, force: bool = False
         ) -> list[Packed]:
    """Packs the images of a list into records. The files do not depend on the number of workers.

    Parameters
    ----------
    lst : path-like
        An image list in any format that `tables.load` reads. Its class names are those of `<prefix>.classes.txt`.
    root : path-like
        The folder that the paths in the list are relative to.
    out_prefix : path-like, optional
        Writes `<out_prefix>.rec`, `.idx` and `.manifest.json`; default the list's path without `.lst`.
    resize : int, default 0
        Length of the shorter edge in pixels; 0 keeps the size.
    center_crop : bool, default False
        Crop the image to a square before it is resized.
    quality : int, optional
        JPEG quality 1..100 (default 95), or PNG compression 0..9 (default 3).
    color : int, default 1
        1 for RGB, 0 for grey, -1 for as it is.
    encoding : {'.jpg', '.png'}
    pass_through : bool, default False
        Store the bytes of the image files unchanged (JPEG and PNG only). The images are still checked.
    max_megapixels : float, default 100
        An image whose header declares more is refused before it is decoded.
    workers : int, default 1
        Number of processes.
    shards : int, default 1
        Number of files `<out_prefix>_<i>.rec`. Each holds a consecutive part of the list; concatenated they equal the
        single file. `ImageRecordIter(path_imgrec='a_0.rec;a_1.rec', num_parts=..., part_index=...)` reads them.
    shard : int, optional
        Write only this shard, counted from 0; its bytes are the same as when all are written.
    on_error : {'fatal', 'skip'}
        If an image cannot be read, 'fatal' packs nothing and 'skip' leaves the image out. Either way all images are
        tried, and those that cannot be read are listed.
    allow_outside : bool, default False
        Allow images outside `root`, which a list can name by an absolute path or with `..`.
    force : bool, default False
        Replace an earlier result.

    Returns
    -------
    list of Packed
        One for each file written.

    Raises
    ------
    UnreadableImages
        With on_error='fatal'. The images are listed in `<out_prefix>.unreadable.txt`.
    DataError
        The list, its labels, the root folder or the target cannot be used, or the disk is full. No half-written file is
        left behind.
    ConfigError
        An option is out of its range.
    """
    options = _options(resize, center_crop, quality, color, encoding, pass_through, max_megapixels)
    _check_run(workers, shards, shard, on_error)
    if not os.path.isdir(root):
        raise DataError("no such folder", path=root, expected="the folder that the list's paths begin at")
    prefix = Path(out_prefix) if out_prefix is not None else without_suffix(lst)
    entries, classes = tables.load(lst)
    _check_labels(entries, classes, lst)
    if not allow_outside:
        _check_inside(entries, root, lst)
    parts = _parts(len(entries), shards, shard)
    names = {i: prefix if shards == 1 else Path(f"{prefix}_{i}") for i in parts}
    _check_other_shards(prefix, shards)
    about = {"classes": classes, "options": {**asdict(options), "on_error": on_error},
             "list": {"name": Path(lst).name, "sha256": hashlib.sha256(Path(lst).read_bytes()).hexdigest(),
                      "entries": len(entries)}, "source": Path(os.path.abspath(root)).name}
    with contextlib.ExitStack() as stack:
        jobs = [_Job(stack.enter_context(Target(names[i], force)), begin, end,
                     {**about, "shard": None if shards == 1 else {"number": i, "of": shards}})
                for i, (begin, end) in parts.items()]
        _fill(jobs, entries, root, options, workers, stop=on_error == "fatal")
        _finish(jobs, lst, prefix, on_error)
    return [job.packed for job in jobs]


class _Job:
    """One target file, and the entries [begin, end) of the list that go into it."""

    def __init__(self, target, begin, end, about):
        self.target, self.begin, self.end, self.about = target, begin, end, about
        self.tally = manifest.Tally()
        self.packed = Packed(target.path(".rec"))


def _fill(jobs, entries, root, options, workers, stop):
    """Converts the images and writes them in order. With `stop`, the first failure ends writing but not checking."""
    read = functools.partial(_read_chunk, os.fspath(root))
    convert = functools.partial(_convert_chunk, options)
    failed = False
    with reporter.progress(total=sum(job.end - job.begin for job in jobs), unit="image", desc="pack") as bar:
        for job in jobs:
            chunks = _chunks(entries, job.begin, job.end, root, options)
            position = job.begin
            for results in pool.ordered(convert, chunks, workers=workers, weight=lambda chunk: chunk[0],
                                        prepare=read):
                for result in results:
                    entry = entries[position]
                    if isinstance(result, str):
                        job.packed.skipped.append(Skipped(entry.index, entry.path, result))
                        failed = stop
                    elif not failed:
                        _store(job, entry, *result)
                    position += 1
                bar.update(len(results))


def _store(job, entry, converted, source_hash):
    payload = framing.pack_header(entry.labels, entry.index) + converted.data
    job.target.write(entry.index, payload)
    job.tally.add(entry.labels, converted.source_size, converted.size, source_hash, manifest.crc(payload))
    if job.about["options"]["pass_through"] and converted.orientation != 1:
        job.packed.not_upright += 1


def _chunks(entries, begin, end, root, options) -> Iterator[tuple[int, list[str]]]:
    """Cuts the list into the workers' tasks: (memory that the result may take in bytes, paths)."""
    # A photo stored as PNG takes several times the bytes of its JPEG.
    growth = 8 if options.encoding == ".png" and not (options.resize or options.pass_through) else 1
    paths, weight = [], 0
    for position in range(begin, end):
        path = entries[position].path
        size = growth * _size(os.path.join(root, path))
        if paths and (len(paths) == _CHUNK_IMAGES or weight + size > _CHUNK_BYTES):
            yield weight, paths
            paths, weight = [], 0
        paths.append(path)
        weight += size
    if paths:
        yield weight, paths


def _size(path) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


def _read_chunk(root, chunk):
    """(bytes, hash) of each file, or the reason why it cannot be read. Runs in a worker, without MXNet."""
    results = []
    for path in chunk[1]:
        try:
            data = header.read_file(os.path.join(root, path))
            results.append((data, manifest.short_hash(data)))
        except header.Unreadable as error:
            results.append(str(error))
    return results


def _convert_chunk(options, read):
    """(Converted, hash of the file) of each image, or the reason why it failed. Runs in a worker, without MXNet."""
    results = []
    for each in read:
        try:
            results.append(each if isinstance(each, str) else (decode.convert(each[0], options), each[1]))
        except header.Unreadable as error:
            results.append(str(error))
        except MemoryError:
            results.append("not enough memory to decode it")
    return results


def _finish(jobs, lst, prefix, on_error):
    skipped = [s for job in jobs for s in job.packed.skipped]
    total = sum(job.end - job.begin for job in jobs)
    report = with_suffix(prefix, ".unreadable.txt")
    empty = next((job for job in jobs if not job.target.records), None)
    if skipped and (on_error == "fatal" or empty):
        text = "".join(f"{s.path}\t{s.reason}\n" for s in skipped)
        with contextlib.suppress(OSError):
            report.write_text(text, encoding="utf-8", errors="backslashreplace")
        raise UnreadableImages(skipped, total, lst, report)
    for job in jobs:
        about = {**job.about, "skipped": [asdict(s) for s in job.packed.skipped]}
        job.target.commit(manifest.to_bytes(job.tally, job.target, about))
        job.packed.records, job.packed.bytes = job.target.records, job.target.bytes
    with contextlib.suppress(OSError):
        report.unlink()


def _options(resize, center_crop, quality, color, encoding, pass_through, max_megapixels):
    if encoding not in DEFAULT_QUALITY:
        raise ConfigError(f"no encoding '{encoding}'", expected=".jpg or .png")
    if pass_through and (resize or center_crop or quality is not None or color != 1 or encoding != ".jpg"):
        raise ConfigError("--pass-through stores the files as they are", expected="no option that changes the image",
                          remedy="drop --pass-through, or --resize, --center-crop, --quality, --color and --encoding")
    if not (isinstance(resize, int) and 0 <= resize <= 16384):
        raise ConfigError("bad resize", expected="pixels of the shorter edge, 1 to 16384, or 0", found=resize)
    low, high = (1, 100) if encoding == ".jpg" else (0, 9)
    quality = DEFAULT_QUALITY[encoding] if quality is None else quality
    if not (isinstance(quality, int) and low <= quality <= high):
        raise ConfigError("bad quality", expected=f"{low} to {high} for {encoding}", found=quality)
    if color not in (-1, 0, 1):
        raise ConfigError("bad color", expected="1 (RGB), 0 (grey) or -1 (as it is)", found=color)
    if not max_megapixels > 0:
        raise ConfigError("bad max_megapixels", expected="a number over 0", found=max_megapixels)
    return decode.ImageOptions(resize, bool(center_crop), quality, color, encoding, bool(pass_through), max_megapixels)


def _check_run(workers, shards, shard, on_error):
    pool.check_workers(workers)
    if not (isinstance(shards, int) and 1 <= shards <= MAX_SHARDS):
        raise ConfigError("bad number of shards", expected=f"1 to {MAX_SHARDS}", found=shards)
    if shard is not None and not (isinstance(shard, int) and 0 <= shard < shards):
        raise ConfigError("bad shard", expected=f"0 to {shards - 1} of {shards}", found=shard)
    if on_error not in ("fatal", "skip"):
        raise ConfigError("bad on_error", expected="'fatal' or 'skip'", found=on_error)


def _parts(count, shards, shard) -> dict[int, tuple[int, int]]:
    """Shard number -> its entries [begin, end) of the list."""
    if shards > count:
        raise ConfigError("more shards than images", expected=f"at most {count}", found=shards)
    chosen = range(shards) if shard is None else [shard]
    return {i: (i * count // shards, (i + 1) * count // shards) for i in chosen}


def _check_other_shards(prefix, shards):
    if shards == 1:
        return
    for path in glob.glob(f"{glob.escape(str(prefix))}_*.rec"):
        number = re.fullmatch(r"_([0-9]+)\.rec", path[len(str(prefix)):])
        if number and int(number[1]) >= shards:
            raise DataError("belongs to another number of shards", path=path, expected=f"shards 0 to {shards - 1}",
                            remedy="remove it with its .idx and .manifest.json, or choose another name")


def _check_inside(entries, root, lst):
    """DataError for a path outside `root`: a list from a stranger must not pack private files of this machine."""
    top = os.path.abspath(root)
    for entry in entries:
        place = os.path.normpath(os.path.join(top, entry.path))
        if (os.path.isabs(entry.path) or ".." in entry.path) and os.path.commonpath([top, place]) != top:
            raise DataError("an image outside of the folder", path=lst, expected=f"paths below {root}",
                            found=lists.shown(entry.path), remedy="correct the list or ROOT, or --allow-outside")


def _check_labels(entries, classes, lst):
    for line, entry in enumerate(entries, 1):
        if classes and len(entry.labels) == 1 and not entry.labels[0] < len(classes):
            raise DataError("label out of range", path=f"{lst}:{line}", expected=f"0 to {len(classes) - 1}, as there "
                            f"are {len(classes)} class names", found=f"{entry.labels[0]:g}")

"""data.json of a run: every image that was used, with label and hash, so that two runs' data can be compared."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gluon_ft.data.sources.files import FileSource
from gluon_ft.data.sources.joined import SEPARATOR, JoinedRecords
from gluon_ft.data.sources.records import RecordSource
from gluon_ft.errors import DataError
from gluon_ft.io import atomic
from gluon_ft.io.checksums import sha256_of
from gluon_ft.io.paths import AnyPath
from gluon_ft.reporting import run_files

NAME = "data.json"


def describe(parts: dict[str, FileSource | RecordSource], classes: list[str], left_out: list[dict],
             weights: dict | None = None) -> dict:
    """What data.json holds. The hashes do not depend on where the folder of the images is.

    Parameters
    ----------
    parts : dict of str to FileSource or RecordSource
        'train', 'validation', ...
    classes : list of str
        In label order.
    left_out : list of dict
        {part, path, why} of each image that was not used.
    weights : dict, optional
        Source and SHA-256 of the pretrained weights; None without.

    Returns
    -------
    dict
        `classes`, `left_out` and `weights` as given; `sha256` of the whole; and `parts`: name -> {source, root, images,
        sha256, files}. `files` are [path, label, SHA-256 of its bytes], or None for packed records, whose hash is that
        of the whole .rec, or of the hashes of several (`source` has them with ';' between).

    Raises
    ------
    DataError
        An image cannot be read.
    """
    described = {name: _part(part) for name, part in parts.items()}
    whole = hashlib.sha256(json.dumps([classes, {name: part["sha256"] for name, part in described.items()}]).encode())
    return {"classes": classes, "parts": described, "left_out": left_out, "sha256": whole.hexdigest(),
            "weights": weights}


def _part(part: FileSource | RecordSource) -> dict:
    if isinstance(part, JoinedRecords):
        sums = [sha256_of(each.path) for each in part.parts]
        return {"source": SEPARATOR.join(str(each.path) for each in part.parts), "root": None, "images": len(part),
                "sha256": hashlib.sha256("".join(sums).encode()).hexdigest(), "files": None}
    if isinstance(part, RecordSource):
        return {"source": str(part.path), "root": None, "images": len(part), "sha256": sha256_of(part.path),
                "files": None}
    rows = [[path, label, known] for (path, label), known in zip(part.files, part.hashes()[0])]
    whole = hashlib.sha256("".join(f"{label}\t{digest}\t{path}\n" for path, label, digest in rows)
                           .encode("utf-8", "surrogateescape"))
    return {"source": str(part.path), "root": str(part.root), "images": len(rows), "sha256": whole.hexdigest(),
            "files": rows}


def write(folder: AnyPath, described: dict) -> Path:
    """Writes data.json, one image a line."""
    return atomic.write(Path(folder) / NAME, _text(described).encode("utf-8", "backslashreplace") + b"\n")


def _text(described):
    parts = []
    for name, part in described["parts"].items():
        head = json.dumps({key: value for key, value in part.items() if key != "files"}, ensure_ascii=False)[:-1]
        rows = part["files"] and ",\n".join(json.dumps(row, ensure_ascii=False) for row in part["files"])
        parts.append(f'{json.dumps(name)}: {head}, "files": ' + ("null" if rows is None else f"[\n{rows}\n]") + "}")
    rest = {key: value for key, value in described.items() if key != "parts"}
    return json.dumps(rest, indent=1, ensure_ascii=False)[:-2] + ',\n "parts": {\n' + ",\n".join(parts) + "\n}}"


def read(folder: AnyPath) -> dict | None:
    """The data.json of a run folder; None where there is none. DataError where it is damaged."""
    path = Path(folder) / NAME
    try:
        return run_files.parse(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError("not the record of a run's data", path=path,
                        found=getattr(error, "strerror", None) or error) from error


def difference(one: dict, other: dict) -> list[str]:
    """In words, what differs between the data and weights of two runs; empty where all are the same."""
    found = []
    if one["classes"] != other["classes"]:
        found.append(f"classes: {_named(one['classes'], other['classes'])}")
    for name in dict.fromkeys([*one["parts"], *other["parts"]]):
        a, b = one["parts"].get(name), other["parts"].get(name)
        if a is None or b is None:
            found.append(f"{name}: only in the {'second' if a is None else 'first'}")
        elif a["sha256"] != b["sha256"]:
            found.append(f"{name}: {_files(a, b)}")
    first, second = one.get("weights"), other.get("weights")
    if first != second:
        found.append(f"weights: {_weights(first)} in the first, {_weights(second)} in the second")
    return found


def _weights(known):
    return "none" if known is None else f"{known['source']} (sha256 {known['sha256'][:12]}...)"


def _named(one, other):
    if set(one) == set(other):
        return "in another order"
    return f"{_few(set(one) - set(other))} only in the first, {_few(set(other) - set(one))} only in the second"


def _files(a, b):
    if a["files"] is None or b["files"] is None:
        return f"{a['images']} images and {b['images']}, of other contents"
    first, second = ({path: (label, digest) for path, label, digest in part["files"]} for part in (a, b))
    changed = {path for path in first.keys() & second.keys() if first[path][1] != second[path][1]}
    labels = {path for path in first.keys() & second.keys() if first[path][0] != second[path][0]}
    kinds = ((first.keys() - second.keys(), "only in the first"), (second.keys() - first.keys(), "only in the second"),
             (changed, "with other contents"), (labels, "with another label"))
    words = [f"{len(paths)} images {what} ({_few(paths)})" for paths, what in kinds if paths]
    return ", ".join(words) or "in another order"


def _few(names, most=3):
    names = sorted(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") if names else "none"

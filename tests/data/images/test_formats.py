"""The one table of formats and suffixes: each is found in a folder, decoded, and not called wrong."""
from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, features

from gluon_ft.data.audit.checks import audit
from gluon_ft.data.images import decode, formats
from gluon_ft.data.sources import folders

WRITTEN_AS = {"MPO": "JPEG"}
NEEDS = {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000"}


def picture(kind: str, seed: int = 0) -> bytes:
    """A picture of this format with a pattern of its own."""
    pattern = np.kron(np.random.RandomState(seed).randint(0, 256, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    out = io.BytesIO()
    if kind == "HEIF":
        heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
        heif.from_pillow(Image.fromarray(pattern)).save(out)
        return out.getvalue()
    Image.fromarray(pattern).save(out, WRITTEN_AS.get(kind, kind))
    return out.getvalue()


@pytest.mark.parametrize("kind", sorted(formats.FORMATS))
def test_every_suffix_of_a_format_is_found_read_and_called_right(tmp_path, kind):
    if kind in NEEDS and not features.check(NEEDS[kind]):
        pytest.skip(f"this Pillow has no {kind}")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number, suffix in enumerate(formats.FORMATS[kind]):
            (tmp_path / name / f"{number}{suffix.upper() if number % 2 else suffix}").write_bytes(
                picture(kind, 10 * number + ord(name)))
    found = folders.scan(tmp_path)
    assert len(found) == 2 * len(formats.FORMATS[kind]) and not found.left_out
    assert decode.decode_rgb(found.read(0)).shape == (48, 48, 3)
    report = audit([tmp_path])
    assert "wrong suffix" not in report.findings and "unreadable" not in report.findings

"""Packing reads below its folder only, and says what several labels are read by."""
from __future__ import annotations

import photos
import pytest

from gluon_ft.data import lists
from gluon_ft.data.audit.checks import audit
from gluon_ft.data.records import inspect, pack, verify
from gluon_ft.data.sources.opening import open_source
from gluon_ft.errors import DataError


@pytest.mark.parametrize("path, outside", [
    ("{root}/red/00.png", False), ("red/../red/00.png", False), ("./red/00.png", False),
    ("{away}/red/00.png", True), ("../away/red/00.png", True), ("red/../../away/red/00.png", True),
    ("/etc/hostname", True)])
def test_images_outside_of_the_folder_are_refused_unless_allowed(tmp_path, path, outside):
    root, away = photos.make(tmp_path / "root", count=1), photos.make(tmp_path / "away", count=1)
    lst = tmp_path / "x.lst"
    lists.write(lst, [lists.Entry(0, (0.0,), "red/00.png"), lists.Entry(1, (1.0,), path.format(root=root, away=away))])
    if not outside:
        assert pack.pack(lst, root)[0].records == 2
        return
    with pytest.raises(DataError, match=r"x\.lst: an image outside of the folder; expected paths below .*root; found "
                                        r".*; correct the list or ROOT, or --allow-outside"):
        pack.pack(lst, root)
    assert not (tmp_path / "x.rec").exists()
    if "etc" not in path:
        assert pack.pack(lst, root, allow_outside=True)[0].records == 2


def test_records_with_two_labels_are_whole_and_say_what_reads_them(tmp_path):
    root = photos.make(tmp_path / "p", count=2)
    lst = tmp_path / "two.lst"
    lst.write_text("".join(f"{i}\t{i % 2}\t0.5\t{name}/00.png\n" for i, name in enumerate(("red", "green", "blue"))))
    (packed,) = pack.pack(lst, root)
    for source in (packed.rec, lst):
        with pytest.raises(DataError, match=r"several labels.*; training here takes one.*ImageRecordIter") as error:
            open_source(source, **({"root": root} if source == lst else {}))
        assert "damaged" not in str(error.value)
    assert verify.verify(packed.rec).ok and inspect.inspect(packed.rec).rows[0]["class"] == "(2 labels)"
    assert not audit([packed.rec]).findings


@pytest.mark.parametrize("color", [0, 1, -1])
@pytest.mark.parametrize("encoding", [".jpg", ".png"])
def test_grey_records_are_read_by_every_engine(tmp_path, color, encoding):
    from gluon_ft.data.images.preprocessing import Preprocessing
    from gluon_ft.data.loader import make_loader

    root = photos.make(tmp_path / "p", ("red", "blue"), count=2)
    lst = root / "x.csv"
    lst.write_text("image,label\n" + "".join(f"{c}/{i:02}.png,{c}\n" for c in ("red", "blue") for i in range(2)))
    rec = pack.pack(lst, root, color=color, encoding=encoding)[0].rec
    how = Preprocessing(size=32, resize=36)
    means = []
    for engine in ("threads", "native", "dataset"):
        loader = make_loader(rec, preprocessing=how, train=False, batch_size=4, engine=engine, cache=None)
        (batch,) = loader
        assert batch.data.shape == (4, 3, 32, 32) and loader.classes == ["blue", "red"]
        means.append(float(batch.data.mean().asscalar()))
    assert max(means) - min(means) < 0.01

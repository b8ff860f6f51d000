"""Lists as others write them: every form gives the images and classes that are meant, or one line that says why not."""
from __future__ import annotations

import pytest

from gluon_ft.data import lists, tables
from gluon_ft.data.sources.files import from_list
from gluon_ft.errors import DataError

PATHS = ["cats/a.jpg", "dogs/b c.png", "cats/ü.webp"]
NUMBERS, NAMES = [0, 1, 0], ["cat", "dog"]


@pytest.mark.parametrize("name, text", [
    ("im2rec.lst", "7\t0\tcats/a.jpg\n8\t1\tdogs/b c.png\n9\t0.000000\tcats/ü.webp\n"),
    ("pairs.lst", "cats/a.jpg\t0\ndogs/b c.png\t1\ncats/ü.webp\t0\n"),
    ("turned.lst", "0\tcats/a.jpg\n1\tdogs/b c.png\n0\tcats/ü.webp\n"),
    ("header.csv", "image,label\ncats/a.jpg,0\ndogs/b c.png,1\ncats/ü.webp,0\n"),
    ("turned.csv", "Label,File Name\n0,cats/a.jpg\n1,dogs/b c.png\n0,cats/ü.webp\n"),
    ("other.csv", "whatever,class_id\ncats/a.jpg,0\ndogs/b c.png,1\ncats/ü.webp,0\n"),
    ("more.csv", "id,width,image_path,label\n1,20,cats/a.jpg,0\n2,20,dogs/b c.png,1\n3,20,cats/ü.webp,0\n"),
    ("quoted.csv", '"image","label"\r\n"cats/a.jpg","0"\r\n"dogs/b c.png","1"\r\n"cats/ü.webp","0"'),
    ("excel.csv", "\ufeffimage;label\r\ncats/a.jpg;0\r\ndogs/b c.png;1\r\ncats/ü.webp;0\r\n"),
    ("windows.csv", "image,label\ncats\\a.jpg,0\ndogs\\b c.png,1\ncats\\ü.webp,0\n"),
    ("bare.csv", "cats/a.jpg,0\ndogs/b c.png,1\n\ncats/ü.webp,0"),
    ("indexed.csv", "0,cats/a.jpg,0\n1,dogs/b c.png,1\n2,cats/ü.webp,0\n"),
    ("tabs.tsv", "path\tcategory\ncats/a.jpg\t0\ndogs/b c.png\t1\ncats/ü.webp\t0\n"),
    ("bars.txt", "cats/a.jpg|0\ndogs/b c.png|1\ncats/ü.webp|0\n"),
    ("caffe.txt", "cats/a.jpg 0\ndogs/b c.png 1\ncats/ü.webp 0\n"),
    ("wide.txt", "cats/a.jpg    0\n dogs/b c.png \t1\ncats/ü.webp  0"),
    ("turned.txt", "0 cats/a.jpg\n1 dogs/b c.png\n0 cats/ü.webp\n"),
])
def test_numbers_in_every_form(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    entries, class_names = tables.load(tmp_path / name)
    assert [entry.path for entry in entries] == PATHS
    assert [entry.label for entry in entries] == NUMBERS and class_names is None


@pytest.mark.parametrize("name, text", [
    ("three.lst", "0\tcat\tcats/a.jpg\n1\tdog\tdogs/b c.png\n2\tcat\tcats/ü.webp\n"),
    ("header.csv", "filename,class\ncats/a.jpg,cat\ndogs/b c.png,dog\ncats/ü.webp,cat\n"),
    ("both.csv", "filename,label,class_name\ncats/a.jpg,5,cat\ndogs/b c.png,9,dog\ncats/ü.webp,5,cat\n"),
    ("onehot.csv", "image,cat,dog\ncats/a.jpg,1,0\ndogs/b c.png,0.0,1.0\ncats/ü.webp,1,0\n"),
    ("text.txt", "cats/a.jpg cat\ndogs/b c.png dog\ncats/ü.webp cat\n"),
    ("turned.txt", "cat cats/a.jpg\ndog dogs/b c.png\ncat cats/ü.webp\n"),
])
def test_labels_by_name(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = from_list(tmp_path / name)
    assert found.names == PATHS and found.labels.tolist() == NUMBERS and found.class_names == NAMES
    lists.write(tmp_path / "x.lst", tables.load(tmp_path / name).entries)  # as pack and split write it
    # Names that are known already decide, whatever the order in which they stand there, or their Unicode form.
    (tmp_path / f"{name[:-4]}.classes.txt").write_text("dog\nowl\ncat\n")
    assert from_list(tmp_path / name).labels.tolist() == [2, 0, 2]


def test_names_of_several_words_and_forms(tmp_path):
    (tmp_path / "a.txt").write_text("1.jpg hot dog\n2.jpg cafe\u0301\n3.jpg caf\u00e9\n", encoding="utf-8")
    assert from_list(tmp_path / "a.txt").class_names == ["caf\u00e9", "hot dog"]
    (tmp_path / "b.csv").write_text("image,label\n1.jpg,Cat\n2.jpg,cat\n")
    with pytest.raises(DataError, match="two classes differ only by case; found 'Cat' and 'cat'"):
        tables.load(tmp_path / "b.csv")


@pytest.mark.parametrize("text, wording", [
    ("image,label\na.jpg,cat|dog\n", ":2: several labels an image; expected one class an image; found 'cat|dog'; "
                                     "training here takes one class.*ImageRecordIter"),
    ("image,cat,dog\na.jpg,1,1\n", ":2: several labels an image; .*found 'cat, dog'"),
    ("image,cat,dog\na.jpg,1,0\nb.jpg,0,0\n", ":3: several labels an image; .*found 'none'"),
    ("a.jpg,1,0,1\nb.jpg,0,0,1\n", ":1: several labels an image; .*found '1, 0, 1'"),
    ("a.jpg 1 0\nb.jpg 0 0\n", ":1: several labels an image"),
    ("image,label\na.jpg,0\nb.jpg\n", ":3: another number of columns than in line 1; expected 2; found 1"),
    ("image,label\na.jpg,0\n,1\n", ":3: no image"),
    ("image,label\na.jpg,0\nb.jpg,\n", ":3: no label"),
    ("image,label\na.jpg,-1\n", ":2: label is not a class; expected a whole number from 0"),
    ("image,label\na.jpg,0.5\n", ":2: label is not a class"),
    ("image,label\na.jpg,16777217\n", ":2: label is not a class"),
    ("image,label,split\na.jpg,0,train\n", ":1: a table of several parts; .*found a column 'split'; write each part"),
    ("image,width\na.jpg,20\n", "no error"),
    ("image,width,height\na.jpg,20,20\n", ":1: no column of labels; expected one that is called label, class"),
    ("label,x,y\n0,1,1\n", ":1: no column of images"),
    ("image,label\n", "no images; expected one a line; found a header only"),
    ("\n\n", "no images"),
    ("one,two\n3,4\n", "it does not show which column is which; expected a header such as image,label"),
    ("some words\nof prose\n", "it does not show which column is which"),
    ("image,label\na.jpg,0\0\n", ":2: not text"),
])
def test_what_is_no_list_is_said_in_a_line(tmp_path, text, wording):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    if wording == "no error":
        assert tables.load(path).entries[0].label == 20
        return
    with pytest.raises(DataError, match=wording.replace("|", r"\|")) as error:
        tables.load(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


def test_names_that_the_classes_file_lacks_and_other_encodings(tmp_path):
    (tmp_path / "a.csv").write_text("image,label\na.jpg,cat\nb.jpg,dogg\n")
    (tmp_path / "a.classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"a.csv:3: class 'dogg' is not known; .*; did you mean dog\?"):
        tables.load(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes("image,label\nü.jpg,cat\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"b.csv:2: not UTF-8; .*save it as UTF-8"):
        tables.load(tmp_path / "b.csv")


@pytest.mark.parametrize("name", ["photos.rec", "photos-train.rec", "photos_val.csv", "photos3.rec", "photostrain.rec",
                                  "photos.v2-test.lst", "photosfold0-val.lst"])
def test_class_names_are_found_with_and_without_a_dash(tmp_path, name):
    (tmp_path / "photos.classes.txt").write_text("cat\ndog\n")
    (tmp_path / "photo.classes.txt").write_text("wrong\nnames\n")
    assert lists.find_class_names(tmp_path / name) == NAMES
    assert lists.find_class_names(tmp_path / "photosalbum.rec") is None

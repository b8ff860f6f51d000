"""errors: the wording of one-line errors, and suggestions of near names."""
from __future__ import annotations

import pickle

import pytest

from gluon_ft import errors
from gluon_ft.errors import DataError, DependencyError, UserError, near


def test_line_has_path_expected_found_remedy_in_this_order():
    error = DataError("no images", path="a/b", expected=".jpg or .png", found="3 .txt", remedy="give another folder")
    assert str(error) == "a/b: no images; expected .jpg or .png; found 3 .txt; give another folder"
    assert (error.path, error.found) == ("a/b", "3 .txt")


def test_line_breaks_go_but_spaces_in_a_path_stay():
    assert str(UserError("two\n  lines", path="my  folder")) == "my  folder: two lines"


def test_falsy_expected_and_found_are_shown():
    assert str(UserError("classes", expected=2, found=0)) == "classes; expected 2; found 0"


def test_an_error_survives_the_way_out_of_a_worker_process():
    error = pickle.loads(pickle.dumps(DataError("bad", path="x.jpg", remedy="remove it")))
    assert type(error) is DataError
    assert (str(error), error.message, error.remedy) == ("x.jpg: bad; remove it", "bad", "remove it")


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "NetworkError", "WeightsError", "DownloadError",
                                  "TrainingError", "CheckpointError", "DependencyError"])
def test_kinds_are_user_errors(name):
    assert issubclass(getattr(errors, name), UserError)


def test_a_missing_dependency_is_also_an_import_error():
    with pytest.raises(ImportError, match=r"^no x; pip install x$"):
        raise DependencyError("no x", remedy="pip install x")


def test_near():
    assert near("resnet18", ["resnet18_v1", "vgg16"]) == "did you mean resnet18_v1?"
    assert near("RESNET18_V1", ["resnet18_v1", "vgg16"]) == "did you mean resnet18_v1?"
    assert near("cat", ["cats", "cart", "dog"]) == "did you mean cats or cart?"
    assert near("zzz", ["a", "b"]) == "known: a, b"
    assert near("zzz", map(str, range(10, 34))) == f"known: {', '.join(map(str, range(10, 34)))}"
    assert near("zzz", map(str, range(10, 35))) == "known: 10, 11, 12, 13, 14, 15, 16, 17, ..."
    assert near("--nosuch", ["--epochs", "--runs"]) == "known: --epochs, --runs"
    assert near("--epoch", ["--epochs", "--runs"]) == "did you mean --epochs?"
    assert near("a", []) == "there are none"


def test_an_error_is_told_of_a_file_in_its_own_kind():
    error = DataError("bad", expected=1, found=2).at("x.jpg", "remove it")
    assert type(error) is DataError and str(error) == "x.jpg: bad; expected 1; found 2; remove it"
    assert error.at("y.jpg", "another").remedy == "remove it"

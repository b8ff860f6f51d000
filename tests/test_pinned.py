"""What commit ebec404 did, pinned: bytes, hashes, settings, checkpoints, saved models, runs, parameters after training.

The files and values in tests/pinned were made by that commit (tests/pinned/make.py). Where a test here fails, files
that users have are read differently, or they get other numbers than before; it is not to be mended by new values.
"""
from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from pinned import common, data, runs, trainings

from gluon_ft.errors import Interrupted
from gluon_ft.training import checkpoint

PINNED = json.loads((common.HERE / "values.json").read_text("utf-8"))
CLOSE = 2e-5  # of numbers where MXNet rounds otherwise; enough for AVX2 and SSE4.1, two threads, and no oneDNN
OF_THE_CLOCK = ("seconds", "in_epoch")


def needs(*packages):
    """Skips where other versions may well encode or resize images otherwise."""
    for name in packages:
        if common.VERSIONS[name] != PINNED["versions"][name]:
            pytest.skip(f"made with {name} {PINNED['versions'][name]}, here is {common.VERSIONS[name]}")


@pytest.fixture(scope="session", name="arithmetic")
def arithmetic_fixture():
    """How MXNet by itself computes here, as a hash."""
    return trainings.arithmetic()


@pytest.fixture(scope="session", name="at_home")
def at_home_fixture(arithmetic):
    """Whether it computes the same bits as where the fixtures were made."""
    return arithmetic == PINNED["arithmetic"]


def compare(found, pinned, arithmetic=None, where="pinned"):
    """Equal, but for floats, which are close, and hashes of trained parameters ('bits'): these count where it is known
    what came out with this arithmetic."""
    if isinstance(pinned, dict):
        assert list(found) == list(pinned), where
        for key, value in pinned.items():
            if key == "figures":
                compare_figures(found[key], value, f"{where}, figures")
            elif key == "bits":
                assert found[key] == value.get(arithmetic, found[key]), f"{where}, bits"
            else:
                compare(found[key], value, arithmetic, f"{where}, {key}")
    elif isinstance(pinned, list):
        assert len(found) == len(pinned), where
        for number, (one, other) in enumerate(zip(found, pinned)):
            compare(one, other, arithmetic, f"{where}, {other[0] if isinstance(other, list) and other else number}")
    elif isinstance(pinned, float):
        assert math.isclose(found, pinned, rel_tol=CLOSE, abs_tol=1e-6), (where, found, pinned)
    else:
        assert (type(found), found) == (type(pinned), pinned), where


def compare_figures(found, pinned, where):
    """`common.figures` of arrays, each figure with regard to the size of the values that it is made of."""
    assert list(found) == list(pinned), where
    for name, (shape, known) in pinned.items():
        assert found[name][0] == shape, (where, name)
        size, mean = known[0], known[0] / max(1, math.prod(shape))
        scales = [size, size, size, *[mean + abs(value) for value in known[3:]]]
        for one, other, scale in zip(found[name][1], known, scales):
            assert abs(one - other) <= CLOSE * scale + 1e-6, (where, name, found[name][1], pinned[name][1])


def close(found, pinned, where):
    """Arrays by name; a checkpoint's have no order."""
    assert sorted(found) == sorted(pinned), where
    for name, array in pinned.items():
        assert found[name].dtype == array.dtype, (where, name)
        np.testing.assert_allclose(found[name], array, rtol=CLOSE, atol=CLOSE * max(1e-3, np.abs(array).mean()),
                                   err_msg=f"{where}, {name}")


def same(found, wanted):
    """To the bit."""
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def timeless(value):
    """Without the values that depend on the clock."""
    if isinstance(value, dict):
        return {key: None if key in OF_THE_CLOCK else timeless(item) for key, item in value.items()}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def test_bits_are_compared_here(arithmetic):
    if arithmetic not in PINNED["fits"]["average"]["bits"]:
        pytest.skip("MXNet itself rounds otherwise here than where the values were made (another kind of processor, or "
                    "another number of threads): parameters were compared with a tolerance only")


@pytest.mark.parametrize("name", data.SPLITS)
def test_lists_of_a_split(name, tmp_path):
    assert data.split_lists(tmp_path, name) == PINNED["splits"][name]


@pytest.mark.parametrize("name", data.PACKS)
def test_packed_records(name, tmp_path):
    if name not in data.UNCHANGED:
        needs("opencv", "pillow")
    assert data.records(tmp_path, name) == PINNED["packed"][name]


def test_records_of_that_commit_are_whole(tmp_path):
    shutil.copytree(common.RECORDS, tmp_path / "records")
    out = common.cli("verify", tmp_path / "records" / "set-train.rec", "--json")
    (report,) = json.loads(out.splitlines()[-1])["files"]
    assert (report["ok"], report["records"], report["manifest"], report["index"]) == (True, 7, True, True)


def test_what_loaders_say_of_their_images(tmp_path):
    compare(data.identities(tmp_path), PINNED["identities"])


def test_what_kept_features_say_of_their_images(tmp_path):
    compare(data.images_of_features(tmp_path), PINNED["images of features"])


def test_what_kept_features_are_found_by(tmp_path):
    compare(trainings.kept_features(tmp_path), PINNED["kept features"])


def test_batches(tmp_path):
    needs("opencv", "pillow", "numpy")
    compare(data.batches(tmp_path), PINNED["batches"])


def test_orders_of_images():
    assert data.orders() == PINNED["orders"]


def test_perceptual_hashes_and_the_audit():
    needs("opencv", "pillow", "imagehash")
    assert data.perceptual() == PINNED["perceptual"]
    compare(data.audited(), PINNED["audited"])


@pytest.mark.parametrize("what", PINNED["settings"])
def test_settings(what):
    assert data.settings()[what] == PINNED["settings"][what]


@pytest.mark.parametrize("name", trainings.FITS)
def test_parameters_after_training(name, arithmetic):
    first, second = (trainings.fit_values(*trainings.fitted(name)) for _ in range(2))
    if name in trainings.INEXACT:
        arithmetic = None
    else:
        assert first == second
    for found in (first, second):
        compare(found, PINNED["fits"][name], arithmetic)


@pytest.mark.parametrize("name", trainings.SYMBOLIC)
def test_parameters_after_symbolic_training(name, arithmetic):
    first, second = (trainings.symbolic_values(trainings.symbolic_fit(name)) for _ in range(2))
    assert first == second
    compare(first, PINNED["symbolic fits"][name], arithmetic)


@pytest.mark.parametrize("name", trainings.CUT)
def test_a_checkpoint_goes_on(name, tmp_path, arithmetic, at_home):
    old, new = shutil.copytree(common.HERE / "fit" / name, tmp_path / "old"), tmp_path / "new"
    with pytest.raises(Interrupted):
        trainings.fitted(name, at=trainings.AT, save_to=new)
    names = sorted(path.name for path in (old / "checkpoints").iterdir())
    assert sorted(path.name for path in (new / "checkpoints").glob("*.ckpt")) == names
    for file in names:
        written, found = (checkpoint.read(folder / "checkpoints" / file) for folder in (old, new))
        compare(common.as_before(timeless(found.values)), timeless(written.values))
        close(found.arrays, written.arrays, file)
    whole, wanted = trainings.fitted(name)
    resumed = [trainings.fitted(name, save_to=folder, resume=True) for folder in (old, new)]
    same(common.parameters(resumed[1][0]), common.parameters(whole))
    assert trainings.history_of(resumed[1][1]) == trainings.history_of(wanted)
    if at_home:
        same(common.parameters(resumed[0][0]), common.parameters(whole))
    for net, result in resumed:
        compare(trainings.fit_values(net, result), PINNED["fits"][name], arithmetic if at_home else None)


@pytest.mark.parametrize("name", trainings.SYMBOLIC_CUT)
def test_a_symbolic_checkpoint_goes_on(name, tmp_path, arithmetic, at_home):
    old, new = shutil.copytree(common.HERE / "symbolic" / name, tmp_path / "old"), tmp_path / "new"
    with pytest.raises(trainings.Crash):
        trainings.symbolic_fit(name, save_to=new, on_epoch=trainings.crash_after(1))
    names = sorted(path.name for path in old.iterdir())
    assert sorted(path.name for path in new.iterdir()) == names
    for file in names:
        if file.endswith(".params"):
            close(common.saved(new / file), common.saved(old / file), file)
        elif file == "model-symbol.json":
            assert (new / file).read_text() == (old / file).read_text()
        else:
            found, written = (json.loads((folder / file).read_text()) for folder in (new, old))
            assert list(found.pop("sha256")) == list(written.pop("sha256"))
            compare(timeless(found), timeless(written))
    wanted = trainings.symbolic_fit(name)
    resumed = [trainings.symbolic_fit(name, save_to=folder, resume=True) for folder in (old, new)]
    same(trainings.symbolic_arrays(resumed[1]), trainings.symbolic_arrays(wanted))
    assert trainings.history_of(resumed[1]) == trainings.history_of(wanted)
    if at_home:
        same(trainings.symbolic_arrays(resumed[0]), trainings.symbolic_arrays(wanted))
    for result in resumed:
        compare(trainings.symbolic_values(result), PINNED["symbolic fits"][name], arithmetic if at_home else None)


@pytest.fixture(scope="module", name="models")
def models_fixture(tmp_path_factory):
    return common.unpacked("models", tmp_path_factory.mktemp("saved"))


@pytest.mark.parametrize("name", runs.MODELS)
def test_saved_models(name, models):
    path = models / f"{name}.params"
    before = path.read_bytes(), path.with_name(f"{path.name}.json").read_text("utf-8")
    compare(runs.model_values(path), PINNED["models"][name])
    again = models / "again" / path.name
    assert (again.read_bytes(), again.with_name(f"{path.name}.json").read_text("utf-8")) == before


@pytest.mark.parametrize("name", [name for name in runs.RUNS if name not in runs.CUT_RUNS])
def test_a_run(name, tmp_path, arithmetic):
    compare(runs.run(runs.placed(tmp_path), name), PINNED["run values"][name], arithmetic)


@pytest.mark.parametrize("name", runs.CUT_RUNS)
def test_an_interrupted_run_is_finished(name, tmp_path, arithmetic, at_home):
    pinned = PINNED["run values"][name]
    place = runs.placed(tmp_path)
    compare(runs.run(place, name), pinned, arithmetic)
    whole = shutil.move(place / "runs", place / "whole") / name
    old = common.unpacked("runs", place) / name
    # The run's files name its folder and those of the photos and the model, which are elsewhere now.
    for path in old.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".lst", ".txt"):
            path.write_text(path.read_text("utf-8").replace(common.PLACE, json.dumps(str(place))[1:-1]), "utf-8")
    out = common.cli("train", "--run", old, "--resume")
    found = runs.run_values(place, name, out)
    # What the audit found is not kept in the run's folder, and the images are not audited again.
    assert found["result"].pop("audit") == {}
    assert found.pop("environment keys") == [*pinned["environment keys"], "resumed"]
    assert found.pop("said")[0] == f"run: {common.PLACE}/runs/{name}, resumed"
    wanted = {key: value for key, value in pinned.items() if key in found}
    wanted["result"] = {key: value for key, value in wanted["result"].items() if key != "audit"}
    compare(found, wanted, arithmetic if at_home else None)
    for file in ("last.params", "best.params"):
        close(common.saved(old / file), common.saved(whole / file), file)
        if at_home:
            assert (old / file).read_bytes() == (whole / file).read_bytes()

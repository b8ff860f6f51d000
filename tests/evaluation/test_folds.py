"""Folds: stratified, seeded, copies kept together; subsets of loaders; mean and spread."""
from __future__ import annotations

import statistics

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

import gluon_ft
from gluon_ft import loaders
from gluon_ft.data import lists, split
from gluon_ft.data.audit import checks
from gluon_ft.data.records import pack
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.evaluation import folds as cv

LABELS = np.array([0] * 20 + [1] * 10 + [2] * 5)


def test_folds_are_stratified_seeded_and_cover_everything():
    found = cv.folds(LABELS, 5, seed=1)
    assert sorted(np.concatenate([val for _, val in found]).tolist()) == list(range(35))
    for train, val in found:
        assert np.bincount(LABELS[val]).tolist() == [4, 2, 1]
        assert sorted([*train, *val]) == list(range(35))
        assert train.dtype == val.dtype == np.int64
    same, other = cv.folds(LABELS, 5, seed=1), cv.folds(LABELS, 5, seed=2)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(found, same))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(found, other))


def test_groups_stay_together():
    groups = np.arange(35)
    groups[[0, 1, 2]] = 0
    groups[[20, 21]] = 20
    for seed in range(5):
        for _, val in cv.folds(LABELS, 4, seed, groups):
            assert len({0, 1, 2} & set(val.tolist())) in (0, 3)
            assert len({20, 21} & set(val.tolist())) in (0, 2)
    alone = cv.folds(LABELS, 4, 0, np.arange(35) + 100)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(alone, cv.folds(LABELS, 4, 0)))


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((LABELS, 6), ConfigError, "more folds than the smallest class has images: 6; expected at most 5; "
                               "found 5 images of class 2; ask for fewer folds"),
    ((LABELS, 1), ConfigError, "number of folds out of range; expected a whole number, 2 or more; found 1"),
    ((LABELS, 2.5), ConfigError, "number of folds out of range"),
    ((LABELS, True), ConfigError, "number of folds out of range"),
    ((np.zeros(9, int), 3), DataError, "images of one class only; expected two or more; found 1 classes"),
    ((LABELS, 3, 0, np.arange(3)), DataError, "groups and labels differ in number; expected 35 groups; found 3"),
    ((LABELS, 5, 0, np.where(LABELS == 2, 0, 1 + np.arange(35))), DataError, "copies of images belong together; "
     ".*no training image of class 2"),
])
def test_what_cannot_be_divided(arguments, error, message):
    with pytest.raises(error, match=message):
        cv.folds(*arguments)


def test_rows_mean_and_spread():
    seen = []

    def run(fold, train, val):
        seen.append(val)
        score = [0.5, 0.75, 1.0][fold]
        return [{"name": "a", "train_accuracy": 1.0, "validation_accuracy": score, "C": 3},
                {"name": "b", "train_accuracy": score, "validation_accuracy": 0.25}]

    found = cv.cross_validate(3, LABELS, 7, run)
    assert sorted(np.concatenate(seen).tolist()) == list(range(35))
    assert [(row["name"], row["fold"], row["seed"]) for row in found.rows] == [
        (name, fold, 7) for fold in range(3) for name in "ab"]
    first, second = found.summary
    assert first == {"name": "a", "folds": 3, "train_mean": 1.0, "train_sd": 0.0, "validation_mean": 0.75,
                     "validation_sd": statistics.stdev([0.5, 0.75, 1.0]), "validation_min": 0.5, "validation_max": 1.0}
    assert second["train_mean"] == 0.75 and second["validation_sd"] == 0
    text = str(found).splitlines()
    assert text[0].split() == ["name", "seed", "fold", "train_accuracy", "validation_accuracy", "C"]
    assert any(line.split()[:3] == ["a", "3", "1.000"] for line in text)
    one = cv.summarise_folds(found.rows[:1])[0]
    assert one["validation_sd"] is None and one["folds"] == 1
    assert len(cv.cross_validate(2, LABELS, 0, lambda *_: {"name": "x", "train_accuracy": 1, "validation_accuracy": 0}
                                 ).rows) == 2


@pytest.fixture
def photos(tmp_path):
    """Two classes of six photos each; in the first, 1 and 4 are the same but for their encoding, 2 is like no other."""
    random = np.random.RandomState(0)
    for label in range(2):
        (tmp_path / "photos" / "ab"[label]).mkdir(parents=True)
        for i in range(6):
            small = Image.fromarray(random.randint(0, 256, (6, 6, 3), dtype=np.uint8))
            small.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "photos" / "ab"[label] / f"{i}.png")
    Image.open(tmp_path / "photos" / "a" / "1.png").save(tmp_path / "photos" / "a" / "4.jpg", quality=80)
    (tmp_path / "photos" / "a" / "4.png").unlink()
    return tmp_path / "photos"


HOW = gluon_ft.Preprocessing(size=32, resize=32)


@pytest.mark.parametrize("packed", [False, True])
def test_groups_of_an_audit(photos, tmp_path, packed):
    source, expected = photos, [0, 1, 2, 3, 1, 5, *range(6, 12)]
    if packed:
        drawn = split.split(photos, per_class=5)
        split.write(drawn, tmp_path / "set")
        source = pack.pack(lists.list_file(tmp_path / "set", "train"), photos)[0].rec
    loader = loaders.make_loader(source, preprocessing=HOW, train=False, batch_size=4)
    groups = cv.groups_of(checks.audit([source]), loader)
    if packed:
        order = [entry.path for entry in drawn.parts["train"]]
        there = {"a/1.png", "a/4.jpg"} <= set(order)
        assert len(groups) == 10 and len(set(groups.tolist())) == 10 - there
        if there:
            assert groups[order.index("a/1.png")] == groups[order.index("a/4.jpg")]
    else:
        assert groups.tolist() == expected
    with pytest.raises(DataError, match=r"the audit is of other images; .*; audit what the loaders read"):
        cv.groups_of(checks.audit([photos]), gluon_ft.loaders.make_loader(
            (np.zeros((4, 32, 32, 3), np.uint8), [0, 1, 0, 1]), preprocessing=HOW, train=False, batch_size=2))


def test_loaders_are_folded_with_copies_together(photos):
    train = loaders.make_loader(photos, preprocessing=HOW, train=True, batch_size=4, cache="memory")
    plain = loaders.make_loader(photos, preprocessing=HOW, train=False, batch_size=4, cache="memory")

    def run(fold, images, held_out):
        assert images.train and not held_out.train
        assert len(images.labels) + len(held_out.labels) == 12
        names = {held_out.source.where(i)[-7:] for i in range(len(held_out.labels))}
        assert len(names & {"a/1.png", "a/4.jpg"}) in (0, 2)
        data = np.concatenate([batch.data.asnumpy() for batch in held_out])
        assert data.shape == (len(held_out.labels), 3, 32, 32)
        return {"name": "n", "train_accuracy": 1.0, "validation_accuracy": float(len(names))}

    found = cv.cross_validate_loaders(3, train, plain, 0, run, [photos])
    assert sum(row["validation_accuracy"] for row in found.rows) == 12


def test_a_subset_is_a_loader_of_its_own(photos):
    whole = loaders.make_loader(photos, preprocessing=HOW, train=False, batch_size=4, cache="memory")
    everything = np.concatenate([batch.data.asnumpy() for batch in whole])
    chosen = np.array([1, 3, 8, 9, 11])
    part = cv.subset(whole, chosen, batch_size=2)
    for _ in range(2):  # the second time from memory
        batches = list(part)
        np.testing.assert_array_equal(np.concatenate([b.data.asnumpy() for b in batches]), everything[chosen])
        assert np.concatenate([b.label.asnumpy() for b in batches]).tolist() == [0, 0, 1, 1, 1]
    assert [b.valid for b in batches] == [2, 2, 1] and len(part) == 3 and part.classes == ["a", "b"]
    assert part.identity() != cv.subset(whole, chosen[:4], batch_size=2).identity()
    assert part.identity() == cv.subset(whole, chosen, batch_size=2).identity()
    assert len(whole.labels) == 12 and len(whole.memory) == 12

    train = cv.subset(loaders.make_loader(photos, preprocessing=HOW, train=True, batch_size=4), chosen)
    for _ in range(2):
        assert sorted(np.concatenate([b.label.asnumpy() for b in train]).tolist()) == [0, 0, 1, 1, 1]

    arrays = gluon_ft.ArrayLoader(np.arange(12.0).reshape(6, 2), [0, 1] * 3, 2, shuffle=True, seed=5)
    part = cv.subset(arrays, [5, 0])
    assert part.data.tolist() == [[10, 11], [0, 1]] and part.labels.tolist() == [1, 0] and part.seed == 5
    with pytest.raises(ConfigError, match="a NDArrayIter cannot be divided; expected an ArrayLoader"):
        cv.subset(mx.io.NDArrayIter(np.zeros((4, 2))), [0])

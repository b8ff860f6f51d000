"""What a network does not know: distances, limits, conformal sets by hand and by frequency; the file beside a model."""
from __future__ import annotations

import json
import re
import shutil

import mxnet as mx
import numpy as np
import photos
import pytest
from train_runs import cli, finished_fixture, gluon_ft_command, images_fixture  # noqa: F401  (fixtures)

from gluon_ft.data.loader import make_loader
from gluon_ft.errors import ConfigError, WeightsError
from gluon_ft.evaluation import unknowns
from gluon_ft.evaluation.model import load_model
from gluon_ft.evaluation.predict import predict
from gluon_ft.training.feature_cache.features import extract


def _blobs(seed=0, each=40, width=12, classes=3):
    rng = np.random.RandomState(seed)
    labels = np.repeat(np.arange(classes), each)
    return np.abs(3 * np.eye(classes, width)[labels] + 0.4 * rng.randn(len(labels), width)), labels


def test_the_distance_is_that_to_the_nearest():
    vectors = np.eye(8)[[0] * 5 + [1] * 5]
    known = unknowns.fit(vectors, np.repeat([0, 1], 5), vectors[:1])
    found = known.distance(np.stack([7 * vectors[0], vectors[5], np.eye(8)[3], -vectors[0] - vectors[5]]))
    assert np.allclose(found, [0, 0, 1, 1 + np.sqrt(0.5)], atol=1e-6)


def test_strange_images_are_beyond_the_limit_and_known_ones_within_it():
    features, labels = _blobs()
    known = unknowns.fit(features, labels)
    fresh = _blobs(seed=1, each=300)[0]
    for rate in (0.05, 0.2):
        assert abs((known.distance(fresh) > known.limit(rate)).mean() - rate) < 0.04
    strange = np.roll(fresh, 5, axis=1)
    assert (known.distance(strange) > known.limit()).all()


def test_held_out_images_set_the_limit_of_features_that_fit_too_well():
    labels = _blobs()[1]
    tight, others = np.eye(3, 12)[labels], _blobs(seed=1)[0]
    assert (unknowns.fit(tight, labels).limit() < 1e-6 < unknowns.fit(tight, labels, others).limit())
    assert (unknowns.fit(tight, labels, others).distance(_blobs(seed=2)[0])
            > unknowns.fit(tight, labels, others).limit()).mean() < 0.12


@pytest.mark.parametrize(("count", "rate", "rank"), [(19, 0.05, 19), (39, 0.05, 38), (18, 0.05, None), (99, 0.1, 90)])
def test_the_limit_is_the_finite_sample_quantile(count, rate, rank):
    values = np.arange(1, count + 1, dtype=np.float32)
    known = unknowns.Known(np.eye(8, dtype=np.float16), values, values)
    assert known.limit(rate) == (np.inf if rank is None else rank)


@pytest.mark.parametrize("rate", [0, 1, -0.1, True, "0.1", float("nan")])
def test_a_share_out_of_range_is_refused(rate):
    known = unknowns.Known(np.eye(8, dtype=np.float16), np.ones(9, np.float32), np.ones(9, np.float32))
    for call in (lambda: known.limit(rate), lambda: known.possible(np.eye(2), rate)):
        with pytest.raises(ConfigError, match="out of range"):
            call()


def test_conformal_sets_by_hand():
    scores = unknowns.conformal_scores(np.array([[.9, .1], [.4, .6], [.8, .2], [.3, .7]]), [0, 0, 0, 1])
    assert np.allclose(scores, [.1, .2, .3, .6])
    probabilities = np.array([[.85, .15], [.55, .45], [.3, .7], [.7, .3]])
    # ceil(5 x 0.6) = 3rd: classes of probability 0.7 or more; the most probable one always.
    assert unknowns.conformal_sets(probabilities, scores, 0.6).tolist() == [[1, 0], [0, 0], [0, 1], [1, 0]]
    known = unknowns.Known(np.eye(8, dtype=np.float16), scores, scores)
    assert known.possible(probabilities, 0.6).tolist() == [[1, 0], [1, 0], [0, 1], [1, 0]]
    assert known.possible(probabilities, 0.9).all()  # four images promise no 90 %
    with pytest.raises(ConfigError, match="no coverage can be promised"):
        unknowns.possible(None, probabilities, 0.9)


def test_conformal_coverage_is_as_promised_over_many_draws():
    rng, covered = np.random.RandomState(0), []
    for _ in range(60):
        p = rng.dirichlet(np.ones(4) * 0.5, 60)
        labels = np.array([rng.choice(4, p=row) for row in p])
        sets = unknowns.conformal_sets(p[40:], unknowns.conformal_scores(p[:40], labels[:40]), 0.8)
        covered.append(sets[np.arange(20), labels[40:]].mean())
    assert 0.77 < np.mean(covered) < 0.85  # between 0.8 and 0.8 + 1 / 41


def test_the_size_is_bounded_and_each_class_stays(monkeypatch):
    monkeypatch.setattr(unknowns, "MOST_IMAGES", 30)
    monkeypatch.setattr(unknowns, "MOST_SCORES", 10)
    labels = np.repeat([0, 1, 2], [200, 9, 12])
    kept = unknowns.drawn(labels, 30)
    assert np.bincount(labels[kept]).tolist() == [12, 9, 9] or np.bincount(labels[kept]).max() <= 12
    known = unknowns.fit(np.random.RandomState(0).rand(221, 8), labels)
    assert (len(known.vectors), len(known.distances)) == (30, 10)
    assert known.distances[-1] == max(known.distances)


def test_a_run_keeps_what_it_knows_and_predict_uses_it(finished, images, tmp_path):
    run, _ = finished
    net = load_model(run / "best.params")
    known = unknowns.of(net)
    assert known.vectors.shape == (24, 500) and len(known.distances) == len(known.scores) == 6
    about = json.loads((run / "best.params.json").read_text())["extra"]["known"]
    assert about["held_out"] == 6 and about["limit"] is None  # six images say nothing about 5 %
    found = predict(net, images, false_alarms=0.2, coverage=0.8)
    wanted, _ = extract(net, make_loader(images, train=False, batch_size=8, preprocessing=net.preprocessing))
    assert np.allclose([p.distance for p in found], known.distance(wanted), atol=1e-5)
    assert [p.unlike for p in found] == (known.distance(wanted) > known.limit(0.2)).tolist()
    assert all(p.possible[0] == p.name for p in found)
    plain = predict(net, images, false_alarms=None)
    assert all(p.unlike is p.possible is p.distance is None for p in plain)
    assert np.allclose([p.probability for p in plain], [p.probability for p in found], atol=1e-6)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: path.unlink(), "what the model knows is missing"),
    (lambda path: path.write_bytes(b"x" * 100), "not a file of weights"),
    (lambda path: mx.nd.save(str(path), {"vectors": mx.nd.ones((9, 9), dtype="float16"),
                                         "distances": mx.nd.ones(3)}), "not the file that the model's card speaks of"),
    (lambda path: path.open("r+b").truncate(unknowns._MOST_FILE + 1), "expected at most"),
])
def test_a_file_that_does_not_fit_is_one_line(finished, images, tmp_path, spoil, message):
    for name in ("best.params", "best.params.json", "best.params.features"):
        shutil.copy(finished[0] / name, tmp_path)
    spoil(tmp_path / "best.params.features")
    net = load_model(tmp_path / "best.params")
    with pytest.raises(WeightsError, match=message):
        predict(net, images)
    assert predict(net, images, false_alarms=None)[0].unlike is None


def test_the_command_says_what_is_unknown(images, tmp_path):
    run = tmp_path / "run"
    cli(images, "--backbone", "lenet", "--pretrained", "none", "--epochs", "2", "--run", run, "validation=0.5")
    other = photos.make(tmp_path / "other", ("green",), count=1)
    out = gluon_ft_command("predict", run, images / "red", other, "--false-alarms", "0.9", "--coverage", "0.5",
                           "--json")
    last = json.loads(out.splitlines()[-1])["predictions"]
    assert len(last) == 11 and {"unknown", "distance", "possible"} <= set(last[0])
    strange = sum(p["unknown"] for p in last)
    assert strange and f"unknown: {strange} of 11 images, like nothing it was trained on" in out
    assert len(re.findall(r" unknown *$", out, re.MULTILINE)) == strange and "possible" in out
    quiet = gluon_ft_command("predict", run, other, "--no-unknowns", "--json")
    assert "unknown" not in json.loads(quiet.splitlines()[-1])["predictions"][0]
    refused = gluon_ft_command("predict", run, other, "--false-alarms", "2", status=2)
    assert "rate of false alarms out of range" in refused

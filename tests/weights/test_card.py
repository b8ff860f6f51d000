"""Cards that a stranger sent: checked whole before anything is built, and refused in one line."""
from __future__ import annotations

import json

import mxnet as mx
import pytest

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import UserError, WeightsError
from gluon_ft.evaluation.model import load_model
from gluon_ft.models import registry
from gluon_ft.weights import card
from gluon_ft.weights.card import Card

HEAD = {"classes": 3, "bias": True, "linear": True, "dropout": 0.0, "appended": [], "options": {}}
GREY = {"mean": [0.1], "std": [0.5], "channel_order": "gray", "size": 28, "resize": None}
GOOD = {"backbone": "lenet", "preprocessing": GREY, "classes": ["a", "b", "c"], "source": "", "source_sha256": "",
        "sha256": "", "notes": [], "head": HEAD, "extra": {}}


def layer(**values):
    return {"name": "top", "classes": 3, "dropout": 0.0, **values}


def head(**values):
    return {"head": {**HEAD, **values}}


CASES = {
    "classes is text": {"classes": "abc"}, "classes are numbers": {"classes": [1, 2, 3]},
    "a class twice": {"classes": ["a", "b", "a"]}, "too few classes": {"classes": ["a", "b"]},
    "an empty class name": {"classes": ["a", "b", ""]}, "no classes": {"classes": []},
    "a class name of 2,000 characters": {"classes": ["a", "b", "c" * 2000]},
    "a class name with a NUL": {"classes": ["a", "b", "c\0"]},
    "backbone is a list": {"backbone": ["lenet"]}, "backbone is missing": {"backbone": None},
    "preprocessing is a list": {"preprocessing": [1]}, "preprocessing is null": {"preprocessing": None},
    "a size of a million": {"preprocessing": {**GREY, "size": 1_000_000}},
    "mean of text": {"preprocessing": {**GREY, "mean": "0"}},
    "std of 1e-300": {"preprocessing": {**GREY, "std": [1e-300]}},
    "mean of 1e300": {"preprocessing": {**GREY, "mean": [1e300]}},
    "scale 1e-320": {"preprocessing": {**GREY, "scale": 1e-320}},
    "channel order is a list": {"preprocessing": {**GREY, "channel_order": ["gray"]}},
    "interpolation is an object": {"preprocessing": {**GREY, "interpolation": {}}},
    "head is a list": {"head": [1]}, "head without classes": {"head": {}}, "head with more": head(more=1),
    "a million classes": head(classes=1_000_000), "classes of text": head(classes="3"),
    "half a class": head(classes=2.5),
    "bias is 1": head(bias=1), "dropout 1": head(dropout=1.0), "dropout is text": head(dropout="0.5"),
    "nine layers": head(appended=[layer(name=f"l{i}") for i in range(9)]), "a layer of text": head(appended=["top"]),
    "a layer's name is a number": head(appended=[layer(name=5)]), "a layer of -1": head(appended=[layer(classes=-1)]),
    "appended is an object": head(appended={}), "options are a list": head(options=["thumbnail"]),
    "notes is text": {"notes": "x"}, "a note is a list": {"notes": [["x"]]}, "extra is a list": {"extra": []},
    "sha256 is a number": {"sha256": 5}, "source is an object": {"source": {}}, "unknown": {"ctx": "gpu"},
}
RAW = {"levels": '{"a":' * 50_000 + "1" + "}" * 50_000, "brackets": "[" * 5_000, "not UTF-8": b'{"backbone": "\xff"}',
       "digits": json.dumps(GOOD).replace('"size": 28', '"size": ' + "9" * 400), "a list": "[]", "nothing": "",
       "NaN": json.dumps(GOOD).replace("0.1", "NaN"), "infinity": json.dumps(GOOD).replace("0.5", "1e999"),
       "twice": '{"backbone": "lenet", ' + json.dumps(GOOD)[1:],
       "5 MB": json.dumps({**GOOD, "notes": ["x" * (5 << 20)]})}


def written(tmp_path, value):
    mx.nd.save(str(tmp_path / "m.params"), {"output.weight": mx.nd.ones((3, 500))})
    data = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    card.beside(tmp_path / "m.params").write_bytes(data)
    return tmp_path / "m.params"


def test_a_good_card_is_read(tmp_path):
    found = card.read(written(tmp_path, {**GOOD, **head(appended=[layer()])}))
    assert found is not None and found.outputs == 3 and found.classes == ["a", "b", "c"]
    again = Card.from_json(found.to_json(), "m")
    assert again == found and found.preprocessing == Preprocessing.from_dict(GREY)


@pytest.mark.parametrize("case", [*CASES, *RAW])
def test_what_is_no_card_is_refused_before_anything_is_built(tmp_path, monkeypatch, case):
    def built(*_, **__):
        raise AssertionError("a network was built")

    monkeypatch.setattr(registry, "build", built)
    path = written(tmp_path, RAW[case] if case in RAW else {**GOOD, **CASES[case]})
    message = r"m\.params\.json: (not a description of weights|the card cannot be read)"
    with pytest.raises(WeightsError, match=message) as error:
        card.read(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


@pytest.mark.parametrize(("backbone", "options"), [
    ("resnet18_v1", {"pretrained": True}), ("resnet18_v1", {"root": "/tmp/x"}), ("resnet18_v1", {"ctx": "gpu"}),
    ("resnet50_v1b", {"norm_layer": "BatchNorm"}), ("resnet50_v1b", {"norm_kwargs": {"num_devices": 8}}),
    ("resnet50_v1b", {"block": None}), ("resnet50_v1b", {"name_prefix": "x"}), ("lenet", {"thumbnail": True}),
    ("resnet18_v1", {"thumbnail": 1}), ("resnet18_v1", {"thumbnail": "yes"}), ("resnet18_v1", {"classes": 1e9}),
    ("resnet50_v1b", {"stem_width": 100_000}), ("resnet50_v1b", {"stem_width": 2.5}), ("vgg11", {"layers": [1]}),
    ("resnet50_v1b", {"final_drop": "0.5"}), ("mobilenetv2_0.25", {"multiplier": 100.0}),
    ("resnet18_v1", {"params": 1})])
def test_options_that_are_none_of_the_architecture_never_reach_it(tmp_path, monkeypatch, backbone, options):
    before, given = registry.build, []
    monkeypatch.setattr(registry, "build", lambda name, **extra: given.append(extra) or before(name, **extra))
    about = {**GOOD, "backbone": backbone, "classes": ["a", "b", "c"], **head(options=options)}
    if backbone != "lenet":
        about["preprocessing"] = {"size": 224}
    with pytest.raises(UserError, match=r"m\.params\.json: the card does not describe a network .*("
                                        r"has no architecture option|cannot be built)"):
        load_model(written(tmp_path, about))
    assert all(not extra for extra in given)


def test_a_card_whose_input_does_not_fit_its_backbone_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="the preprocessing does not fit the network"):
        load_model(written(tmp_path, {**GOOD, "preprocessing": {"size": 28, "resize": None}}))


@pytest.mark.parametrize("names", [["a", "a"], ["\u00e9", "e\u0301"], ["\ud55c", "\u1112\u1161\u11ab"]])
def test_a_card_that_could_not_be_read_again_is_not_written(tmp_path, names):
    about = Card("lenet", Preprocessing.from_dict(GREY), names)
    with pytest.raises(WeightsError, match=f"a class name is there twice; found '{names[0]}'"):
        card.write(tmp_path / "m.params", about)
    assert list(tmp_path.iterdir()) == []


def test_imagenets_own_names_have_two_twice():
    from gluon_ft.weights import class_names
    names = class_names.named("imagenet-1k")
    assert names is not None and len(set(names)) < len(names)
    Card("resnet18_v1", Preprocessing(), names).check_classes()

"""Files that were mutated at random: reading one ends in success or in a UserError of one line, never in anything else.

Every case has its own seed, which is in its number: a failure names the kind and the number of the case.
"""
from __future__ import annotations

import copy
import json
import random
import unicodedata
import warnings
import zipfile
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from record_files import make
from resume_nets import network, sets

import gluon_ft
from gluon_ft.data import lists, tables
from gluon_ft.data.records import inspect, manifest, pack, verify
from gluon_ft.data.records.record_file import RecordFile
from gluon_ft.data.sources.opening import open_source
from gluon_ft.errors import UserError
from gluon_ft.evaluation.model import load_model, save_model
from gluon_ft.finetune import settings
from gluon_ft.reporting import runs
from gluon_ft.reporting.run import Run, read_metrics
from gluon_ft.symbolic import checkpoints, load_symbol
from gluon_ft.training import checkpoint
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit
from gluon_ft.weights import card

FAST, SLOW = 30, 2000  # cases of each of the twelve kinds

DEEP = "@deep@"  # stands for lists in lists
JUNK = [None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 1e-320, 2**31, 2**63, 2**64, 10**400, float("nan"),
        float("inf"), "", " ", "0", "x", "nan", "auto", "none", "x" * 5000, "\0", "a\nb", "\x1b[2J", "\udcff", "\ud800",
        "猫", DEEP, "../x", "/", "é", "e\u0301", [], {}, [[]], [None], [1, "a"], {"a": {}}, {"": 0}, ["x"] * 50]


def nested(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def places(value, at=()):
    """The place of every value in nested dicts and lists."""
    yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*at, key))


def changed(value, rng):
    """A copy with one to three values replaced, removed, added, doubled or moved."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        *way, last = rng.choice([place for place in places(value) if place] or [("",)])
        holder = value
        for key in way:
            holder = holder[key]
        if not isinstance(holder, (dict, list)) or not holder:
            return rng.choice(JUNK)
        what = rng.random()
        if what < 0.6:
            holder[last] = copy.deepcopy(rng.choice([*JUNK, nested(rng.choice((3, 31, 40, 100)))]))
        elif what < 0.75:
            del holder[last]
        elif isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(rng.choice([*JUNK, *holder])))
        else:
            name = rng.choice(["", "a", "root", "ctx", "\x1b", *holder])
            holder[name] = copy.deepcopy(rng.choice(list(holder.values())))
    return value


def scratched(data: bytes, rng) -> bytes:
    """The bytes with one to four places changed, cut out, doubled, moved or grown."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 16, 200))
        what = rng.randrange(7)
        if what == 0:
            data[at:at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            del data[at:at + length]
        elif what == 2:
            del data[at:]
        elif what == 3:
            data[at:at] = data[at:at + length] * rng.choice((1, 3))
        elif what == 4:
            data[at:at] = rng.choice((b"[" * 5000, b"9" * 400, b"\xff", b"\0", b'"', b"{", b"}", b"\n", b"\t", b"-",
                                      b"\r\n", b"1e999", b"NaN", "\u202e猫".encode(), b"\xef\xbb\xbf", b"=", b"a.b"))
        elif what == 5:
            data[at:at + 4] = rng.randrange(1 << 32).to_bytes(4, "little")
        elif data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
    return bytes(data)


def mutated(good, rng) -> bytes:
    if isinstance(good, bytes):
        return scratched(good, rng)
    if rng.random() < 0.3:
        return scratched(json.dumps(good).encode(), rng)
    # What is nested more deeply could not be made as a value.
    return json.dumps(changed(good, rng)).replace(json.dumps(DEEP), "[" * 3000 + "]" * 3000).encode()


class Cards:
    """Cards of a saved model; where one is taken, the model too."""

    def __init__(self, folder):
        net = gluon_ft.fine_tune_net("lenet", 2)
        net(mx.nd.zeros((1, 1, 28, 28)))
        net.classes = ["a", "b"]
        net.preprocessing = gluon_ft.Preprocessing((0.1,), (0.5,), channel_order="gray", size=28, resize=None)
        self.path = save_model(net, folder / "m.params", accuracy=0.5)
        self.good = json.loads(card.beside(self.path).read_text())

    def read(self, data, rng):
        card.beside(self.path).write_bytes(data)
        found = card.read(self.path)
        # Any other backbone is one of the registry that takes seconds to build.
        if found is not None and found.backbone == "lenet":
            load_model(self.path)


class Settings:
    suffix = ".json"

    def __init__(self, folder):
        self.path = folder / f"settings{self.suffix}"
        self.good = {"lr": 0.1, "epochs": 3, "backbone": "lenet", "train": ["a.rec"], "val": ["b.rec"],
                     "augment": {"flip": True}, "freeze": "features", "lr_steps": [1, 2], "seed": 1,
                     "origins": {"lr": "option"}, "reasons": {}}
        self.good = {name: value for name, value in self.good.items()
                     if name in settings.described() or name in (settings.ORIGINS, settings.REASONS)}

    def read(self, data, rng):
        self.path.write_bytes(data)
        settings.JobSettings(**settings.collect(self.path)[0])


class TomlSettings(Settings):
    suffix = ".toml"

    def __init__(self, folder):
        super().__init__(folder)
        self.good = (b'lr = 0.1\nepochs = 3\nbackbone = "lenet"\nseed = 1_000\n# note\nfreeze = \'features\'\n'
                     b'[augment]\nflip = true\nscale = [0.5, 1.0]\n')


class Manifests:
    """Manifests that bear the hash of their new content."""

    def __init__(self, folder):
        rec = packed(folder)
        self.path = rec.with_suffix(".manifest.json")
        self.good = json.loads(self.path.read_text())

    def read(self, data, rng):
        try:
            content = json.loads(data)
            content["sha256"] = manifest.own_hash(content)
            data = json.dumps(content).encode()
        except (ValueError, TypeError, RecursionError):
            pass
        self.path.write_bytes(data)
        manifest.read(self.path)


def packed(folder) -> Path:
    (done,) = pack.pack(make(folder / "set", number=4), folder / "set" / "images", resize=24)
    return Path(done.rec)


class Records:
    """One of the files of packed records, read by everything that reads them."""

    def __init__(self, folder):
        self.path = packed(folder)
        self.files = {suffix: self.path.with_suffix(suffix).read_bytes()
                      for suffix in (".rec", ".idx", ".manifest.json")}
        self.good = b""

    def read(self, data, rng):
        suffix = rng.choice((".rec", ".rec", ".idx", ".manifest.json"))
        for each, content in self.files.items():
            self.path.with_suffix(each).write_bytes(scratched(content, rng) if each == suffix else content)
        if rng.random() < 0.5:
            self.path.with_suffix(".manifest.json").unlink()
        verify.verify(self.path)
        refused_or(lambda: inspect.inspect(self.path))
        source = open_source(self.path)
        for position in range(min(len(source), 8)):
            refused_or(lambda position=position: source.read(position))
        RecordFile(self.path).class_labels()


class Lists:
    def __init__(self, folder):
        self.path = folder / "x.lst"
        self.good = b"0\t1.000000\ta b.jpg\n7\t0.000000\tc/d.png\n8\t2.000000\t\xe7\x8c\xab.jpg\n"

    def read(self, data, rng):
        self.path.write_bytes(data)
        list(lists.read(self.path))


class Tables:
    """A list as others write it."""

    FORMS = (b"image,label\na.jpg,cat\nb c.png,dog\n\xe7\x8c\xab.jpg,cat\n",
             b'"a.jpg";"cat"\n"b;c.png";"dog"\n', b"a.jpg 0\nb c.png 1\nd/e.webp 2\n", b"cat a.jpg\ndog b c.png\n",
             b"id,breed\n1.jpg,x\n2.jpg,y\n", b"image,cat,dog\na.jpg,1,0\nb.jpg,0,1\n",
             b"0\ta.jpg\tcat\n1\tb.jpg\tdog\n")

    def __init__(self, folder):
        self.path, self.good = folder / "x.csv", b""

    def read(self, data, rng):
        self.path.write_bytes(scratched(rng.choice(self.FORMS), rng))
        refused_or(lambda: tables.load(self.path))
        refused_or(lambda: open_source(self.path))


class ClassNames(Lists):
    def __init__(self, folder):
        super().__init__(folder)
        self.good = "cat\nd og\n猫\ne\u0301\n".encode()

    def read(self, data, rng):
        self.path.write_bytes(data)
        lists.read_classes(self.path)


ROW = {"name": "a", "seed": 0, "train_accuracy": 0.5, "validation_accuracy": 0.25, "seconds": 1.5}
PART = {"source": "x.lst", "root": "photos", "images": 1, "sha256": "0" * 64, "files": [["a.jpg", 0, "1" * 64]]}
RUN = {
    "config.json": {"lr": 0.1, "strategy": "all", "origins": {"lr": "option"}, "reasons": {"lr": "few images"}},
    "environment.json": {"date": "2026-01-02T03:04:05+00:00", "command": "train", "variables": {},
                         "gluon_ft": {"version": "1", "commit": "abc", "dirty": False},
                         "resumed": [{"date": "x", "changed": {}}]},
    "data.json": {"classes": ["a", "b"], "sha256": "0" * 64, "weights": {"source": "x", "sha256": "1" * 64},
                  "left_out": [{"part": "train", "path": "x", "why": "y"}], "parts": {"train": PART}},
    "result.json": {"rows": [ROW, {**ROW, "seed": 1}], "best_epoch": 2, "details": {"a": [1, 2]}},
}
METRICS = [{"series": "a", "epoch": 1, "train_loss": 0.5, "lr": 0.1}, {"series": "a", "epoch": 2, "train_loss": None}]


class RunFiles:
    """The JSON files of a run: listed, compared with a good run, resumed."""

    def __init__(self, folder):
        self.good, self.run, self.other = b"", folder / "runs" / "run", folder / "runs" / "other"
        for each in (self.run, self.other):
            each.mkdir(parents=True)
            for name, value in RUN.items():
                (each / name).write_text(json.dumps(value))

    def read(self, data, rng):
        chosen = rng.choice([*RUN, "metrics.jsonl"])
        for name, value in RUN.items():
            (self.run / name).write_bytes(mutated(value, rng) if name == chosen else json.dumps(value).encode())
        lines = [json.dumps(value).encode() for value in METRICS]
        if chosen == "metrics.jsonl":
            lines[rng.randrange(2)] = mutated(rng.choice(METRICS), rng).replace(b"\n", b"")
        (self.run / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        refused_or(lambda: runs.find(self.run.parent))
        refused_or(lambda: runs.compare(self.run, self.other))
        refused_or(lambda: read_metrics(self.run / "metrics.jsonl"))
        (self.run / "result.json").unlink()
        if rng.random() < 0.2:  # each start records its environment, which takes a while
            Run(folder=self.run, resume=True).history()


class Symbols:
    def __init__(self, folder):
        data = mx.sym.var("data")
        part = mx.sym.split(mx.sym.BatchNorm(data, name="bn"), num_outputs=2, axis=1, name="part")
        output = mx.sym.FullyConnected(part[1] + part[0], num_hidden=3, name="fc")
        symbol = mx.sym.SoftmaxOutput(output, name="softmax")
        self.path = folder / "a-symbol.json"
        self.good = json.loads(symbol.tojson())

    def read(self, data, rng):
        self.path.write_bytes(data)
        load_symbol(self.path).list_outputs()


class SymbolicStates:
    def __init__(self, folder):
        self.folder = folder
        symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="fc")
        history = [{"epoch": 1, "train_accuracy": 0.5}]
        state = checkpoints.State(1, 5, 1, {"lr": 0.1}, history, 1, ["a", "b"], {"size": 28})
        saved = checkpoints.save(folder, symbol, {"fc_weight": mx.nd.ones((2, 3))}, {}, {}, state)
        self.path = saved.with_suffix(".json")
        self.good = json.loads(self.path.read_text())

    def read(self, data, rng):
        self.path.write_bytes(data)
        checkpoints.load_state(self.folder, 1)


class TrainingCheckpoints:
    """The values in a checkpoint of Gluon training, and one of its arrays left out, renamed or of another form."""

    def __init__(self, folder):
        self.folder, self.config = folder, TrainConfig(epochs=2, ema=0.5, save_every=1, keep=9)
        fit(network(), *sets(count=12), self.config, save_to=folder)
        store = checkpoint.Store(folder)
        self.path, self.bundle = store.paths()[-1], checkpoint.read(store.paths()[-2])
        self.good = self.bundle.values

    def read(self, data, rng):
        arrays = dict(self.bundle.arrays)
        if rng.random() < 0.3:
            name = rng.choice(sorted(arrays))
            value = arrays.pop(name)
            other = rng.choice([name, f"{name}@1", f"x{name}", "meter/0/x", "meter/7/0", "average/#updates"])
            arrays[other] = rng.choice(
                [value, value[:0], value.reshape(-1), np.array(1.0), value.astype("uint16"), value.astype("float64")])
        checkpoint.write(self.path, checkpoint.Bundle({}, arrays))
        with zipfile.ZipFile(self.path) as archive:
            tensors = archive.read("tensors.safetensors")
        with zipfile.ZipFile(self.path, "w") as archive:
            archive.writestr("state.json", data.replace(b"{", b'{"format": "%s", ' % checkpoint.FORMAT.encode(), 1))
            archive.writestr("tensors.safetensors", tensors)
        fit(network(), *sets(count=12), self.config, save_to=self.folder, resume=True)


KINDS = [Cards, Settings, TomlSettings, Manifests, Records, Lists, Tables, ClassNames, RunFiles, Symbols,
         SymbolicStates, TrainingCheckpoints]


def refused_or(read):
    """Calls `read`; a UserError has to be one line that a terminal can be given."""
    try:
        read()
    except UserError as error:
        line = str(error)
        acting = [c for c in line if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
                  or unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")]
        assert not acting, ascii(line)
        assert len(line) < 20_000


def fuzz(kind, folder, cases):
    target = kind(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused_or(lambda: target.read(target.good if isinstance(target.good, bytes) else
                                       json.dumps(target.good).encode(), random.Random(0)))
        for case in cases:
            rng = random.Random(f"{kind.__name__} {case}")
            data = mutated(target.good, rng)
            try:
                refused_or(lambda data=data, rng=rng: target.read(data, rng))
            except Exception as error:
                raise AssertionError(f"{kind.__name__}, case {case}: {type(error).__name__} {error}; {data[:2000]!r}"
                                     ) from error


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_end_in_success_or_a_user_error(tmp_path, kind):
    fuzz(kind, tmp_path, range(FAST))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_thousand_mutated_files(tmp_path, kind):
    fuzz(kind, tmp_path, range(FAST, FAST + SLOW))

"""Sound files with seeded damage: each is refused with a WeightsError or read with a valid result, fast and small."""
from __future__ import annotations

import random
from collections import Counter, OrderedDict
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from test_hostile_weights import read_in_child
from weights_writers import Called, Parameter, Storage, Tensor, tensor, write_legacy, write_zip

from gluon_ft.weights.readers.tensor_files import write_safetensors

PER_FILE = 400


def _content():
    base = Storage(np.arange(60, dtype=np.float32))
    return {"epoch": 3, "classes": ["cat", "dog"], "args": Called("argparse.Namespace", (), {"lr": 0.1}),
            "optimizer": {"state": {0: {"step": 1, "exp_avg": tensor(np.ones(4, np.float32))}}},
            "state_dict": OrderedDict({
                "module.conv.weight": Tensor(base, (5, 4, 3), (1, 5, 20)),
                "module.part": Tensor(base, (2, 3), offset=7),
                "module.half": tensor(np.ones((2, 3), np.float16)), "module.count": tensor(np.array(7)),
                "module.bf16": Tensor(Storage(np.arange(6, dtype=np.uint16), "torch.BFloat16Storage"), (2, 3)),
                "module.fc.weight": Parameter(tensor(np.eye(4, dtype=np.float32)))})}


def _sound_files(folder):
    made = [write_zip(folder / "zip2.pth", _content()), write_zip(folder / "zip4.pth", _content(), 4),
            write_legacy(folder / "old2.pth", _content()), write_legacy(folder / "old4.pth", _content(), 4)]
    rng = np.random.default_rng(0)
    arrays = {f"layer{i}.weight": rng.normal(size=(3, i + 1)).astype(np.float32) for i in range(4)}
    made.append(write_safetensors(folder / "a.safetensors", {**arrays, "n": np.array(3)}, {"classes": "cat"}))
    mx.nd.save(str(folder / "a.params"), {f"arg:{k}": mx.nd.array(v) for k, v in arrays.items()})
    return [*made, folder / "a.params"]


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, large numbers, cuts, insertions, copies of other parts."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 32))
        way = rng.randrange(7)
        if way == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[at:at + size] = rng.randbytes(len(data[at:at + size]))
        elif way == 2:
            number = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)).to_bytes(8, "little")
            data[at:at + min(size, 8)] = number[:min(size, 8)]
        elif way == 3:
            del data[at:at + size]
        elif way == 4:
            data[at:at] = rng.randbytes(size)
        elif way == 5:
            other = rng.randrange(len(data))
            data[at:at + size] = data[other:other + size]
        elif len(data) > 64:
            del data[rng.randrange(len(data) // 2, len(data)):]
    return bytes(data)


@pytest.mark.slow
def test_damaged_files(tmp_path):
    sound = _sound_files(tmp_path)
    assert [f["outcome"] for f in read_in_child(sound)] == ["read"] * len(sound)
    rng, paths = random.Random(20240), []
    for source in sound:
        data = source.read_bytes()
        for i in range(PER_FILE):
            paths.append(tmp_path / f"{i:04d}_{source.name}")
            paths[-1].write_bytes(_damaged(data, rng))
    found = read_in_child(paths)
    counts = Counter((Path(f["path"]).name[5:], f["outcome"]) for f in found)
    slowest, largest = max(found, key=lambda f: f["seconds"]), max(found, key=lambda f: f["bytes"])
    print(f"\n{len(found)} damaged files: {dict(counts)}; slowest {slowest['seconds']:.3f} s, "
          f"largest {largest['bytes'] >> 20} MB")
    assert len(found) == 6 * PER_FILE >= 2000
    assert [f for f in found if f["outcome"] not in ("refused", "read")] == []
    assert [(f["path"], f["events"]) for f in found if f["events"]] == []
    assert all(f["error"].startswith(f["path"] + ": ") for f in found if f["outcome"] == "refused")
    assert [f for f in found if "not enough memory" in f["error"]] == []
    assert slowest["seconds"] < 1 and largest["bytes"] < 200 << 20
    # Damage inside the values of formats without a checksum cannot be seen; the rest must be.
    assert all(counts[source.name, "refused"] > PER_FILE // 3 for source in sound)

"""Run by an interpreter that has torch: writes files in a folder, and what torch reads back from them as .npz."""
import argparse
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

warnings.simplefilter("ignore")


def tensors():
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    made = OrderedDict({f"t.{str(dtype)[6:]}": torch.tensor([[0, 1, 2], [3, 100, 5]]).to(dtype) for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool)})
    made.update(
        transposed=base.transpose(0, 2), part=base[1:, ::2, 1:3], row=base[1], shared=base, scalar=torch.tensor(2.5),
        empty=torch.empty(0, 7), expanded=torch.ones(3, 1).expand(3, 4), tiny=torch.randn(5).to(torch.bfloat16),
        special=torch.tensor([np.nan, np.inf, -0.0]), parameter=torch.nn.Parameter(torch.randn(4, 2)))
    return made


def main(folder):
    torch.manual_seed(0)
    state = tensors()
    newer = OrderedDict(state, unsigned=torch.tensor([1, 65535]).to(torch.uint16))
    attributed = OrderedDict(state, noted=torch.ones(2))
    attributed["noted"].note = "mine"
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    checkpoint = {"epoch": 7, "best_prec1": torch.tensor(91.5), "acc": np.float64(0.5),
                  "args": argparse.Namespace(lr=0.1),
                  "classes": ["cat", "dog"], "device": torch.device("cpu"), "size": torch.Size([3]),
                  "optimizer": optimiser.state_dict(),
                  "state_dict": {"module." + k: v for k, v in net.state_dict().items()}}
    files = {"newer.pth": (newer, {}), "attributed.pth": (attributed, {}), "checkpoint.pth": (checkpoint, {}),
             "checkpoint_old.pth": (checkpoint, {"_use_new_zipfile_serialization": False})}
    for protocol in (2, 3, 4, 5):
        files[f"zip{protocol}.pth"] = (state, {"pickle_protocol": protocol})
        files[f"old{protocol}.pth"] = (state, {"pickle_protocol": protocol, "_use_new_zipfile_serialization": False})
    for name, (content, options) in files.items():
        torch.save(content, folder / name, **options)
        wanted = net.state_dict() if "checkpoint" in name else content
        np.savez(folder / (name + ".npz"), **{
            k: (v.detach().float() if v.dtype == torch.bfloat16 else v.detach()).numpy() for k, v in wanted.items()})
    torch.serialization.set_crc32_options(False)
    torch.save(state, folder / "unchecked.pth")
    np.savez(folder / "unchecked.pth.npz", **dict(np.load(folder / "zip2.pth.npz")))


main(Path(sys.argv[1]))

"""Builders of symbols as the published pretrained networks have them, written from their descriptions, and weights."""
from __future__ import annotations

import json

import mxnet as mx
import numpy as np

from gluon_ft.models import graph

# He et al., "Identity Mappings in Deep Residual Networks", 2016: units a stage, and whether units are bottlenecks.
# 8 is no published one, but quick.
RESNETS = {8: ((1, 1, 1), False), 18: ((2, 2, 2, 2), False), 50: ((3, 4, 6, 3), True), 152: ((3, 8, 36, 3), True)}


def norm(data, name, fix_gamma=False):
    return mx.sym.BatchNorm(data, fix_gamma=fix_gamma, eps=2e-5, momentum=0.9, name=name)


def relu(data, name):
    return mx.sym.Activation(data, act_type="relu", name=name)


def conv(data, filters, kernel, stride, name):
    return mx.sym.Convolution(data, num_filter=filters, kernel=(kernel, kernel), stride=(stride, stride),
                              pad=(kernel // 2, kernel // 2), no_bias=True, name=name)


def unit(data, filters, stride, same, name, bottleneck):
    """Pre-activation: BatchNorm and ReLU before each convolution; the shortcut branches off after the first ReLU."""
    first = relu(norm(data, f"{name}_bn1"), f"{name}_relu1")
    plan = [(filters // 4, 1, 1), (filters // 4, 3, stride), (filters, 1, 1)] if bottleneck else [
        (filters, 3, stride), (filters, 3, 1)]
    body = first
    for i, (width, kernel, step) in enumerate(plan, 1):
        if i > 1:
            body = relu(norm(body, f"{name}_bn{i}"), f"{name}_relu{i}")
        body = conv(body, width, kernel, step, f"{name}_conv{i}")
    return body + (data if same else conv(first, filters, 1, stride, f"{name}_sc"))


def resnet(depth, classes=1000, width=1.0):
    """Input raw RGB, normalised by `bn_data`; ends in bn1, relu1, pool1, flatten0, fc1, softmax."""
    units, bottleneck = RESNETS[depth]
    filters = [int(f * width) for f in ((64, 256, 512, 1024, 2048) if bottleneck else (64, 64, 128, 256, 512))]
    body = norm(mx.sym.var("data"), "bn_data", fix_gamma=True)
    body = relu(norm(conv(body, filters[0], 7, 2, "conv0"), "bn0"), "relu0")
    body = mx.sym.Pooling(body, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max", name="pooling0")
    for stage, count in enumerate(units, 1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            body = unit(body, filters[stage], stride, number > 1, f"stage{stage}_unit{number}", bottleneck)
    body = relu(norm(body, "bn1"), "relu1")
    body = mx.sym.Pooling(body, global_pool=True, kernel=(7, 7), pool_type="avg", name="pool1")
    return headed(mx.sym.Flatten(body, name="flatten0"), classes, "fc1")


def headed(body, classes, name):
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(body, num_hidden=classes, name=name), name="softmax")


def inception_bn(classes=1000, width=4):
    """One Inception block, BatchNorm with MXNet's defaults (eps 1e-3, fix_gamma), ending in `flatten` and `fc1`."""
    def factory(data, filters, kernel, name, stride=1):
        body = mx.sym.Convolution(data, num_filter=filters, kernel=(kernel, kernel), stride=(stride, stride),
                                  pad=(kernel // 2, kernel // 2), name=f"conv_{name}")
        return relu(mx.sym.BatchNorm(body, name=f"bn_{name}"), f"relu_{name}")

    body = factory(mx.sym.var("data"), width, 7, "1", 2)
    body = mx.sym.Pooling(body, kernel=(3, 3), stride=(2, 2), pool_type="max", name="pool_1")
    pooled = mx.sym.Pooling(body, kernel=(3, 3), stride=(1, 1), pad=(1, 1), pool_type="avg", name="avg_pool_3a")
    towers = [factory(body, width, 1, "3a_1x1"),
              factory(factory(body, width, 1, "3a_3x3_reduce"), width, 3, "3a_3x3"),
              factory(pooled, width, 1, "3a_proj")]
    body = mx.sym.Concat(*towers, name="ch_concat_3a_chconcat")
    body = mx.sym.Pooling(body, global_pool=True, kernel=(7, 7), pool_type="avg", name="global_pool")
    return headed(mx.sym.Flatten(body, name="flatten"), classes, "fc1")


def vgg(classes=1000, width=4, units=16):
    """Two convolutions with bias, then flatten, fc6, fc7, fc8 with dropout."""
    body = mx.sym.var("data")
    for i in (1, 2):
        body = relu(mx.sym.Convolution(body, num_filter=width * i, kernel=(3, 3), pad=(1, 1), name=f"conv{i}_1"),
                    f"relu{i}_1")
        body = mx.sym.Pooling(body, kernel=(2, 2), stride=(2, 2), pool_type="max", name=f"pool{i}")
    body = mx.sym.Flatten(body, name="flatten_0")
    for i in (6, 7):
        body = relu(mx.sym.FullyConnected(body, num_hidden=units, name=f"fc{i}"), f"relu{i}")
        body = mx.sym.Dropout(body, p=0.5, name=f"drop{i}")
    return headed(body, classes, "fc8")


def parameters(symbol, size=32, seed=0, channels=3):
    """(arg_params, aux_params): weights of variance 2 over the inputs, gammas about 1, statistics of the kind."""
    random = np.random.RandomState(seed)
    label = graph.label_name(symbol)
    shapes, _, aux = symbol.infer_shape(**{"data": (2, channels, size, size), label: (2,)})
    args = {}
    for name, shape in zip(symbol.list_arguments(), shapes):
        if name in ("data", label):
            continue
        if name.endswith("weight"):
            value = random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            value = random.uniform(0.8, 1.2, shape) if name.endswith("gamma") else 0.1 * random.randn(*shape)
        args[name] = mx.nd.array(value)
    states = {name: mx.nd.array(random.uniform(0.5, 1.5, shape) if name.endswith("var") else 0.1 * random.randn(*shape))
              for name, shape in zip(symbol.list_auxiliary_states(), aux)}
    return args, states


def legacy_json(symbol, key="param"):
    """The symbol as MXNet wrote it up to 0.8: options under `param` (or `attr`), no running statistics, no shapes."""
    old, place = [], {}
    described = json.loads(symbol.tojson())
    auxiliary = set(symbol.list_auxiliary_states())
    for i, node in enumerate(described["nodes"]):
        if node["name"] in auxiliary:
            continue
        place[i] = len(old)
        # Version 1.9.1 copies options of an operator to its variables; the old one did not.
        options = {} if node["op"] == "null" else node.get("attrs", {})
        old.append({"op": node["op"], key: options, "name": node["name"], "backward_source_id": -1,
                    "inputs": [[place[e[0]], e[1]] for e in node["inputs"] if e[0] in place]})
    heads = [[place[e[0]], e[1]] for e in described["heads"]]
    return json.dumps({"nodes": old, "heads": heads, "arg_nodes": [i for i, n in enumerate(old) if n["op"] == "null"]})

"""`find_source`: loads what to fine-tune, as a symbol or in Gluon: a backbone, catalog weights or a checkpoint."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import mxnet as mx
from mxnet.gluon import HybridBlock

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError
from gluon_ft.models import freezing, graph, heads, pretrained, registry
from gluon_ft.models.freezing import Group
from gluon_ft.models.spec import ModelSpec, resolve
from gluon_ft.symbolic import bridge, checkpoints, legacy, plan
from gluon_ft.symbolic.head import get_fine_tune_model
from gluon_ft.symbolic.legacy import Parameters
from gluon_ft.weights import store
from gluon_ft.weights.catalog import Row

# Input of the published symbolic networks; their first layer, 'bn_data', normalises it.
RAW = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
INPUTS = {"raw": RAW, "imagenet": Preprocessing()}


@dataclass(frozen=True)
class Source:
    """A network with its original output layer: either a Gluon network or a symbolic checkpoint.

    Attributes
    ----------
    name : str
        Shown in reports.
    preprocessing : Preprocessing
        The input format of the network.
    net : HybridBlock or None
    checkpoint : (symbol, arg_params, aux_params) or None
        Exactly one of `net` and `checkpoint` is set.
    notes : tuple of str
        Remarks on the weights, for reports.
    """

    name: str
    preprocessing: Preprocessing
    net: HybridBlock | None = None
    checkpoint: tuple[mx.sym.Symbol, Parameters, Parameters] | None = None
    notes: tuple[str, ...] = ()

    def symbolic(self, num_classes: int, layer_name: str | None = None,
                 frozen: Sequence[str] = ()) -> tuple[mx.sym.Symbol, Parameters, Parameters, list[str]]:
        """The network as a symbol with a new last layer, for `symbolic.fit`.

        Parameters
        ----------
        num_classes : int
            2 or more.
        layer_name : str, optional
            The symbol's layer below the new one; default the input of its last layer.
        frozen : sequence of str, default none
            Patterns for parameter names; of a Gluon network, for paths such as 'features.0.weight'.

        Returns
        -------
        (symbol, arg_params, aux_params, frozen)
            Here `frozen` has patterns for the names in the symbol.

        Raises
        ------
        ConfigError
            `num_classes` is below 2, or `plan.by_pattern` refuses a pattern.
        NetworkError, WeightsError
            See `get_fine_tune_model`.
        """
        if self.checkpoint is not None:
            symbol, arg_params, aux_params = self.checkpoint
            new, kept = get_fine_tune_model(symbol, arg_params, num_classes, layer_name)
            plan.matching(list(kept), frozen)
            return new, kept, aux_params, list(frozen)
        assert self.net is not None
        symbol, arg_params, aux_params = bridge.to_symbol(self.net)
        new, kept = get_fine_tune_model(symbol, arg_params, num_classes, layer_name)
        return new, kept, aux_params, bridge.frozen_names(self.net, frozen, set(kept))

    def gluon(self, num_classes: int, lr_mult: float, layer_name: str | None = None, frozen: Sequence[str] = (),
              ctx: mx.Context | list[mx.Context] | None = None,
              init: mx.init.Initializer | None = None) -> HybridBlock:
        """The network as a block with a new output layer, for `gluon_ft.fit`; `net` itself is changed if it is set.

        Parameters
        ----------
        num_classes : int
            2 or more.
        lr_mult : float
            Learning-rate multiplier of the new layer.
        layer_name : str, optional
            Only for checkpoints: the symbol's layer below the new one; default the input of its last layer.
        frozen : sequence of str, default none
            Patterns for parameter names, see `symbolic`. A BatchNorm layer keeps its running statistics if all its
            parameters match.
        ctx : mx.Context or list of them, default mx.cpu()
        init : Initializer, default Xavier()
            Initialises the new layer.

        Raises
        ------
        ConfigError
            `layer_name` is given for a Gluon network, or a pattern matches nothing.
        NetworkError, WeightsError
            See `bridge.fine_tune_block` and `heads.replace_output`.
        """
        if self.checkpoint is not None:
            symbol, arg_params, aux_params = self.checkpoint
            return bridge.fine_tune_block(symbol, arg_params, aux_params, num_classes, layer_name, lr_mult, ctx, init,
                                          frozen)
        if layer_name is not None:
            raise ConfigError("a layer's name is for symbols", found=f"'{layer_name}'", remedy="leave it out")
        assert self.net is not None
        self.net.collect_params().reset_ctx(ctx or mx.cpu())
        net = heads.replace_output(self.net, num_classes, lr_mult=lr_mult, init=init)
        if frozen:
            freezing.apply_groups(net, [Group(pattern=p, frozen=True) for p in frozen])
        return net


def find_source(backbone: str | None = None, weights: str | os.PathLike[str] | None = None,
                checkpoint: tuple[str | os.PathLike[str], int | str] | None = None,
                preprocessing: Preprocessing | None = None) -> Source:
    """Loads the network to fine-tune.

    Parameters
    ----------
    backbone : str, optional
        A name in the registry. Without `weights` it is initialised with Xavier().
    weights : str or path, optional
        For `backbone`, a tag in the catalog or a file. Or 'BACKBONE:TAG', such as 'mobilenetv2_1.0:coral_rot180', or
        'resnet-50:imagenet1k' for a published symbolic network.
    checkpoint : (prefix, epoch), optional
        A symbolic checkpoint, in place of `backbone` and `weights`.
    preprocessing : Preprocessing, optional
        The input format of the network; default that of the weights.

    Returns
    -------
    Source

    Raises
    ------
    ConfigError
        The arguments name no network, or the input format of the network is not known.
    NetworkError, WeightsError
        A file is missing or cannot be used.
    """
    if checkpoint is not None:
        if backbone or weights:
            raise ConfigError("a checkpoint has its network and weights", found=f"also {backbone or weights}",
                              remedy="give either a checkpoint, or a backbone and weights")
        prefix, epoch = checkpoint
        return _checkpoint_source(prefix, epoch, preprocessing)
    wanted = resolve(backbone or None, weights or None)
    if isinstance(wanted.weights, Row) and wanted.is_symbolic:
        return _published_source(wanted.weights, preprocessing)
    return _gluon_source(wanted, preprocessing)


def _gluon_source(wanted: ModelSpec, preprocessing: Preprocessing | None) -> Source:
    if wanted.weights is not None:
        net = pretrained.pretrained_net(wanted)
        name = wanted.weights.name if isinstance(wanted.weights, Row) else f"{wanted.backbone}:{wanted.weights.name}"
        return Source(name, preprocessing or net.preprocessing, net, notes=net.weights.notes)
    net = registry.build(wanted.backbone)
    net.initialize(mx.init.Xavier())
    net.hybridize()
    # Layers get their shapes in the first forward pass.
    net(mx.nd.zeros(registry.input_shape(wanted.backbone))).wait_to_read()
    return Source(wanted.backbone, preprocessing or wanted.preprocessing, net)


def _published_source(row: Row, preprocessing: Preprocessing | None) -> Source:
    found = store.get(row)
    paths = {file.role: path for file, path in zip(found.files, found.paths)}
    symbol = legacy.load_symbol(paths["symbol"])
    arg_params, aux_params = legacy.split_params(paths["main"])
    legacy.check_aux(symbol, aux_params, paths["main"])
    return Source(row.name, preprocessing or row.preprocessing, checkpoint=(symbol, arg_params, aux_params))


def _checkpoint_source(prefix: str | os.PathLike[str], epoch: int | str, preprocessing: Preprocessing | None) -> Source:
    prefix = os.fspath(prefix)
    try:
        epoch = int(epoch)
    except ValueError:
        epoch = -1
    if epoch < 0:
        raise ConfigError("the checkpoint's epoch is not a number", expected="such as --checkpoint resnet-50 0")
    model = legacy.load_checkpoint(prefix, epoch)
    folder, name = os.path.split(prefix)
    known = preprocessing
    if known is None and name == checkpoints.PREFIX and epoch in checkpoints.epochs(folder or "."):
        saved = checkpoints.load_state(folder or ".", epoch).preprocessing
        known = Preprocessing.from_dict(saved) if saved else None
    if known is None and normalises_itself(model[0]):
        known = RAW
    if known is None:
        raise ConfigError(f"it is not known what the network of {prefix} takes", expected=" or ".join(INPUTS),
                          remedy="say it with --input")
    return Source(f"{name}-{epoch:04d}", known, checkpoint=model)


def normalises_itself(symbol: mx.sym.Symbol) -> bool:
    """Whether the first operator on 'data' is BatchNorm, as in the published ResNets ('bn_data')."""
    nodes = graph.nodes(symbol)
    data = {n.index for n in nodes if n.op == "null" and n.name == "data"}
    users = [n for n in nodes if data & set(n.inputs)]
    while len(users) == 1 and users[0].op in ("identity", "_copy", "Cast"):
        users = [n for n in nodes if users[0].index in n.inputs]
    return bool(users) and all(n.op in graph.BATCHNORM for n in users)

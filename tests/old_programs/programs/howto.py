"""The how-to's program: a pretrained symbol, everything behind one layer replaced, Module trained with fit."""
import logging
import sys

import mxnet as mx

head = "%(asctime)-15s %(message)s"
logging.basicConfig(level=logging.DEBUG, format=head)
model, train_rec, val_rec = sys.argv[1:4]


def get_iterators(batch_size, data_shape=(3, 32, 32)):
    train = mx.io.ImageRecordIter(path_imgrec=train_rec, data_name="data", label_name="softmax_label",
                                  batch_size=batch_size, data_shape=data_shape, shuffle=True, rand_crop=True,
                                  rand_mirror=True)
    val = mx.io.ImageRecordIter(path_imgrec=val_rec, data_name="data", label_name="softmax_label",
                                batch_size=batch_size, data_shape=data_shape, rand_crop=False, rand_mirror=False)
    return (train, val)


def get_fine_tune_model(symbol, arg_params, num_classes, layer_name="flatten0"):
    all_layers = symbol.get_internals()
    net = all_layers[layer_name + "_output"]
    net = mx.symbol.FullyConnected(data=net, num_hidden=num_classes, name="fc1")
    net = mx.symbol.SoftmaxOutput(data=net, name="softmax")
    new_args = dict({k: arg_params[k] for k in arg_params if "fc1" not in k})
    return (net, new_args)


def fit(symbol, arg_params, aux_params, train, val, batch_size, num_gpus):
    devs = [mx.gpu(i) for i in range(num_gpus)] or [mx.cpu()]
    mod = mx.mod.Module(symbol=symbol, context=devs)
    mod.bind(data_shapes=train.provide_data, label_shapes=train.provide_label)
    mod.init_params(initializer=mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2))
    mod.set_params(arg_params, aux_params, allow_missing=True)
    mod.fit(train, val, num_epoch=8, batch_end_callback=mx.callback.Speedometer(batch_size, 10), kvstore="device",
            optimizer="sgd", optimizer_params={"learning_rate": 0.01}, eval_metric="acc")
    metric = mx.metric.Accuracy()
    return mod.score(val, metric)


sym, arg_params, aux_params = mx.model.load_checkpoint(model, 0)
(new_sym, new_args) = get_fine_tune_model(sym, arg_params, 2)
batch_size = 8
(train, val) = get_iterators(batch_size)
mod_score = fit(new_sym, new_args, aux_params, train, val, batch_size, 0)
print("accuracy %.3f" % list(mod_score)[0][1])

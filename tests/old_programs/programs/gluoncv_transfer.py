"""Transfer learning as in GluonCV's tutorial: a network of its zoo, new output, a folder a part, workers."""
import os
import sys
import time

import mxnet as mx
import numpy as np
from mxnet import autograd as ag, gluon, init, nd
from mxnet.gluon import nn
from mxnet.gluon.data.vision import transforms
from gluoncv.model_zoo import get_model
from gluoncv.utils import makedirs

path, params, out = sys.argv[1], sys.argv[2], sys.argv[3]
classes = 2
epochs = int(sys.argv[4])
lr, per_device_batch_size, momentum, wd = 0.02, 8, 0.9, 0.0001
lr_factor, lr_steps = 0.75, [1, 3, np.inf]
num_gpus, num_workers = 0, 2
ctx = [mx.gpu(i) for i in range(num_gpus)] if num_gpus > 0 else [mx.cpu()]
batch_size = per_device_batch_size * max(num_gpus, 1)

jitter_param, lighting_param = 0.1, 0.1
transform_train = transforms.Compose([
    transforms.Resize(36), transforms.RandomResizedCrop(32, scale=(0.5, 1.0)), transforms.RandomFlipLeftRight(),
    transforms.RandomColorJitter(brightness=jitter_param, contrast=jitter_param, saturation=jitter_param),
    transforms.RandomLighting(lighting_param), transforms.ToTensor(),
    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
transform_test = transforms.Compose([
    transforms.Resize(36), transforms.CenterCrop(32), transforms.ToTensor(),
    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])


def loader(part, transform, shuffle):
    return gluon.data.DataLoader(
        gluon.data.vision.ImageFolderDataset(os.path.join(path, part)).transform_first(transform),
        batch_size=batch_size, shuffle=shuffle, num_workers=num_workers)


train_data, val_data, test_data = loader("train", transform_train, True), loader("test", transform_test, False), None
test_data = val_data

finetune_net = get_model("resnet18_v1b", pretrained=False)
finetune_net.load_parameters(params, ctx=ctx)
with finetune_net.name_scope():
    finetune_net.fc = nn.Dense(classes)
finetune_net.fc.initialize(init.Xavier(), ctx=ctx)
finetune_net.collect_params().reset_ctx(ctx)
finetune_net.hybridize()

trainer = gluon.Trainer(finetune_net.collect_params(), "nag", {"learning_rate": lr, "momentum": momentum, "wd": wd})
metric = mx.metric.Accuracy()
L = gluon.loss.SoftmaxCrossEntropyLoss()


def test(net, data, ctx):
    metric = mx.metric.Accuracy()
    for batch in data:
        images = gluon.utils.split_and_load(batch[0], ctx_list=ctx, batch_axis=0, even_split=False)
        label = gluon.utils.split_and_load(batch[1], ctx_list=ctx, batch_axis=0, even_split=False)
        metric.update(label, [net(X) for X in images])
    return metric.get()


lr_counter, num_batch = 0, len(train_data)
for epoch in range(epochs):
    if epoch == lr_steps[lr_counter]:
        trainer.set_learning_rate(trainer.learning_rate * lr_factor)
        lr_counter += 1
    tic, train_loss = time.time(), 0
    metric.reset()
    for i, batch in enumerate(train_data):
        data = gluon.utils.split_and_load(batch[0], ctx_list=ctx, batch_axis=0, even_split=False)
        label = gluon.utils.split_and_load(batch[1], ctx_list=ctx, batch_axis=0, even_split=False)
        with ag.record():
            outputs = [finetune_net(X) for X in data]
            loss = [L(yhat, y) for yhat, y in zip(outputs, label)]
        for l in loss:
            l.backward()
        trainer.step(batch_size)
        train_loss += sum([l.mean().asscalar() for l in loss]) / len(loss)
        metric.update(label, outputs)
    _, train_acc = metric.get()
    train_loss /= num_batch
    _, val_acc = test(finetune_net, val_data, ctx)
    print("[Epoch %d] Train-acc: %.3f, loss: %.3f | Val-acc: %.3f | time: %.1f" %
          (epoch, train_acc, train_loss, val_acc, time.time() - tic))

makedirs(out)
finetune_net.save_parameters(os.path.join(out, "finetuned.params"))
finetune_net.export(os.path.join(out, "finetuned"), epoch=0)
again = mx.gluon.SymbolBlock.imports(os.path.join(out, "finetuned-symbol.json"), ["data"],
                                     os.path.join(out, "finetuned-0000.params"))
picture = transform_test(nd.array(np.zeros((40, 40, 3)), dtype="uint8")).expand_dims(0)
assert np.allclose(again(picture), finetune_net(picture), atol=1e-5)
print("accuracy %.3f" % test(finetune_net, test_data, ctx)[1])

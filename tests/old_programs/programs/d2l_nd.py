"""Fine-tuning as in D2L's older chapter, through `nd`."""
import os
import sys
import time

from mxnet import autograd, gluon, init, nd
import mxnet as mx
import numpy as np
from mxnet.gluon import data as gdata, loss as gloss, model_zoo, utils as gutils

folder, params, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])

train_imgs = gdata.vision.ImageFolderDataset(os.path.join(folder, "train"))
test_imgs = gdata.vision.ImageFolderDataset(os.path.join(folder, "test"))
hotdogs = [train_imgs[i][0] for i in range(4)]
not_hotdogs = [train_imgs[-i - 1][0] for i in range(4)]
sheet = np.concatenate([image.asnumpy() for image in hotdogs + not_hotdogs], axis=1)
print("contact sheet", sheet.shape)

normalize = gdata.vision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
train_augs = gdata.vision.transforms.Compose([
    gdata.vision.transforms.RandomResizedCrop(32, scale=(0.5, 1.0)), gdata.vision.transforms.RandomFlipLeftRight(),
    gdata.vision.transforms.ToTensor(), normalize])
test_augs = gdata.vision.transforms.Compose([
    gdata.vision.transforms.Resize(36), gdata.vision.transforms.CenterCrop(32), gdata.vision.transforms.ToTensor(),
    normalize])


def try_all_gpus():
    ctxes = []
    try:
        for i in range(16):
            ctx = mx.gpu(i)
            _ = nd.array([0], ctx=ctx)
            ctxes.append(ctx)
    except mx.base.MXNetError:
        pass
    return ctxes or [mx.cpu()]


def evaluate_accuracy(data_iter, net, ctx):
    acc_sum, n = nd.array([0]), 0
    for features, labels in data_iter:
        for X, y in zip(gutils.split_and_load(features, ctx), gutils.split_and_load(labels, ctx)):
            y = y.astype("float32")
            acc_sum += (net(X).argmax(axis=1) == y).sum().copyto(mx.cpu())
            n += y.size
        acc_sum.wait_to_read()
    return acc_sum.asscalar() / n


def train_fine_tuning(net, learning_rate, batch_size=8):
    train_iter = gdata.DataLoader(train_imgs.transform_first(train_augs), batch_size, shuffle=True)
    test_iter = gdata.DataLoader(test_imgs.transform_first(test_augs), batch_size)
    ctx = try_all_gpus()
    net.collect_params().reset_ctx(ctx)
    net.hybridize()
    loss = gloss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": learning_rate, "wd": 0.001})
    for epoch in range(epochs):
        train_l_sum, n, m, start = 0.0, 0, 0, time.time()
        for features, labels in train_iter:
            Xs, ys = gutils.split_and_load(features, ctx), gutils.split_and_load(labels, ctx)
            with autograd.record():
                ls = [loss(net(X), y) for X, y in zip(Xs, ys)]
            for l in ls:
                l.backward()
            trainer.step(batch_size)
            train_l_sum += sum([l.sum().asscalar() for l in ls])
            n += sum([l.size for l in ls])
            m += sum([y.size for y in ys])
        print("epoch %d, loss %.4f, time %.1f sec" % (epoch + 1, train_l_sum / n, time.time() - start))
    return evaluate_accuracy(test_iter, net, ctx)


pretrained_net = model_zoo.vision.resnet18_v2()
pretrained_net.load_parameters(params)
print(pretrained_net.output)
finetune_net = model_zoo.vision.resnet18_v2(classes=2)
finetune_net.features = pretrained_net.features
finetune_net.output.initialize(init.Xavier())
finetune_net.output.collect_params().setattr("lr_mult", 10)
print("accuracy %.3f" % train_fine_tuning(finetune_net, 0.01))

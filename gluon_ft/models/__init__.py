"""Networks: the registry, our own architectures, outputs, freezing, stages, pretrained weights."""

# 'The output block is new, so it may learn ten times as fast as the pretrained ones' (D2L 14.2, and Girshick's
# fine-tuned R-CNN before it). Here, since settings are read without MXNet.
HEAD_LR_MULT = 10.0
# Pixels of the shorter edge up to which images count as small: networks made for CIFAR's 32 pixels are for them.
SMALL_EDGE = 48

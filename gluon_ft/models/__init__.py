"""Networks: the registry, our own architectures, outputs, freezing, stages, pretrained weights."""

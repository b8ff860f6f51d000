"""Readers of weights files: PyTorch, safetensors, MXNet's .params; nothing in a file is run."""

# What to do about a file that wants more than tensors.
NOT_RUN = ("nothing in the file was run; ask its author for a safetensors file or a plain state dict: "
           "torch.save(net.state_dict(), path)")

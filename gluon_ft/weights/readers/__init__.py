"""Readers of untrusted weights files: PyTorch, safetensors, MXNet's .params. No code in a file is run."""

# The remedy for a file that asks for more than tensors.
NOT_RUN = ("nothing in the file was run; ask its author for a safetensors file or a plain state dict: "
           "torch.save(net.state_dict(), path)")

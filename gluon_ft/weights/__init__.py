"""Pretrained weights: catalog, downloads, checksums, readers of files, and maps of parameter names."""

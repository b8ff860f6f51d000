"""NVIDIA's GPUs: the libraries that MXNet needs for them, which cards it runs on, and a test before the first use."""

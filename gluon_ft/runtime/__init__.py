"""What lets MXNet run here: its import, threads, processors, devices, seeds, and what `doctor` says of them."""

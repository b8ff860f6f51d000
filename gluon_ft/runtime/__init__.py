"""Makes MXNet run on this machine: its import, fixes, threads, devices and seeds, and the checks of `doctor`."""

"""Files, locks, downloads, archives, settings and progress: nothing here knows of images or networks."""

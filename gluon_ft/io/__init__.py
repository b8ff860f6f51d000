"""Files, downloads, archives, settings as text, progress: what knows nothing of images or networks."""

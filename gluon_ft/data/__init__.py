"""From a folder of images to checked, seeded, packed records, and from there to batches."""

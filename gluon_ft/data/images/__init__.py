"""One image: its header, decoding, transforms, augmentation, preprocessing."""

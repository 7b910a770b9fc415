"""One augmentation per module; the file name is its name."""

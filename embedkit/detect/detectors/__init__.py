"""One detector per module; the file name is its name."""

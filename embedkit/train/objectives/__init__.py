"""One objective per module; the file name is its name."""

"""One attack per module; the file name is its name."""

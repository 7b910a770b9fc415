"""One preset per module; the file name is its name."""

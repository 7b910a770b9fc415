"""One vector store per module; the file name is its name."""

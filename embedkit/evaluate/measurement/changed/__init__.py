"""What changes of images do to embeddings and decisions: seen, or certain."""

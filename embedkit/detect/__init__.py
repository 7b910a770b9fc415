"""Out-of-distribution detection on embeddings."""

"""Serve: batched embeddings and retrieval over gRPC."""

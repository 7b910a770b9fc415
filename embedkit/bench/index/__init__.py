"""Collections served over gRPC beside bare FAISS: recall, rate, build time, memory, disk."""

"""One gRPC service per module."""

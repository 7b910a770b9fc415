"""The wire: generated messages, tensors as bytes, errors as gRPC status."""

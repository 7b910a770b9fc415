"""Clients of the server: need numpy and grpcio alone."""

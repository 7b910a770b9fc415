"""Retrieve: durable collections of vectors with nearest-neighbour search."""

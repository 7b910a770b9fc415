"""Served against bare onnxruntime: senders, loops, rounds, results."""

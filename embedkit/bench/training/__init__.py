"""Measure the training loop beside the bare step."""

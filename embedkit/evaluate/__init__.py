"""Evaluate: measure an embedder, most of all the one that is served."""

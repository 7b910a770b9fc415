"""Measures of embeddings and scores, in numpy alone, for training and for evaluation."""

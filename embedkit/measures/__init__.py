"""Measures of embeddings and scores, in numpy alone: used while training and while evaluating."""

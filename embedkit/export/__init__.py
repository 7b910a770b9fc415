"""Export: from a run, or a model trained elsewhere, to a bundle."""

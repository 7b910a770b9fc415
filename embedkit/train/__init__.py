"""Train: from a recipe to a run folder with weights."""

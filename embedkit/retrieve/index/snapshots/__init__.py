"""The index of a collection on disk: written, checked, and caught up with the truth."""

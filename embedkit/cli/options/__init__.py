"""Groups of options that are too many to stand beside their command."""

"""Whether models that should be one are one: in numbers, in decisions, and in any batch."""

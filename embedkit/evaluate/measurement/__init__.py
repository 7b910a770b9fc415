"""What the answer of a task is made of: metrics, plot data, checks, parts that may fail."""

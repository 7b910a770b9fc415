"""What is certain about images within a distance, and the metrics that come of it."""

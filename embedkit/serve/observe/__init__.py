"""What the server tells of itself: metrics, probes and logs."""

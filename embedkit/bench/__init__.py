"""Load generators and raw baselines: how fast it is, beside how fast it could be."""

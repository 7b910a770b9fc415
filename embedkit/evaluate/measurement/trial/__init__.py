"""Trials of robustness: what is attacked, what is left standing, and whether to believe it."""

"""A run as a folder and as a process: checkpoints, results, interruption, progress."""

"""Run a bundle in this process, and compare any two embedders."""

"""Indexes over vectors: exact, approximate, and how the two make one."""

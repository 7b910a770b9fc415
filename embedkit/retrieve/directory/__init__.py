"""The data directory: who owns it, and the folders of collections in it."""

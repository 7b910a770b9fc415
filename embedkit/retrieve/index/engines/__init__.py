"""FAISS indexes that find most of the nearest, and how hard they have to try."""

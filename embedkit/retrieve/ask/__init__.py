"""Questions that any vector store can answer with its ``search`` and ``scan``."""

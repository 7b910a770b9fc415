"""Questions that any vector store can answer with ``search``, ``at`` and ``scan``."""

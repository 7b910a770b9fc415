"""One collection in SQLite, the only durable copy: what reads it, what writes it."""

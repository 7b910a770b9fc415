"""The calls of clients that concern collections of vectors."""

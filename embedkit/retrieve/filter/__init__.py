"""Filters: a small typed language over JSON payloads, run as SQL by the store."""

"""A run made ready for other programs, and published only if it still gives the same answers."""

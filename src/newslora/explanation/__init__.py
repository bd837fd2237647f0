"""Which words of a text speak for its label."""

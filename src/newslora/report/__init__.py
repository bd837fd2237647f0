"""A run folder -> figures and one HTML file."""

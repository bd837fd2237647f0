"""A trained run put to work on texts and files."""

"""A person's own table of sequences."""

"""Language models of characters or bytes."""

"""Files to ragged examples, and which of them make an update."""

"""Files to ragged examples."""

"""What the commands do, as functions to call from Python."""

"""What people write, or use, in place of peephole, for comparison."""

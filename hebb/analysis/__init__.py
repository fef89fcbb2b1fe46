"""What people look at: each module computes one analysis from stored runs, and draws it."""

"""Long-horizon memory: which tokens of the past are kept, at which resolution, and where."""

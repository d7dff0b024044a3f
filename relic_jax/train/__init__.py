"""Training: one linear loop (`loop`), one stage a file, and what they share."""

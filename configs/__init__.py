"""Experiments, one a file: only what differs, with the command, the hardware and the expected result."""

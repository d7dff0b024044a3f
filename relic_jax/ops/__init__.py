"""Accelerator kernels behind one contract each."""

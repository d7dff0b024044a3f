"""Meshes of devices: how parameters, activations and the cache are divided, and who exchanges what."""

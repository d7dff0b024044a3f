"""Measures of generated video: picture quality, camera trajectory, revisits."""

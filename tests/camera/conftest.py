"""Property tests here are the same on every run and every machine."""

from hypothesis import settings

settings.register_profile("camera", deadline=None, derandomize=True)
settings.load_profile("camera")

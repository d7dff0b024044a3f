"""Mirrors relic_jax: one file a module."""

"""Poses, actions, key scripts and camera conventions; no model in here."""

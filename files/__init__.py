"""Bytes: where they are stored, what is in a picture, and when files are deleted."""

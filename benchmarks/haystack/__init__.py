"""Needles in a haystack of bytes: what is hidden, which models look for it, how they are trained, tested and shown."""

"""Keeps traces: a process of its own takes uploads in, gives rows back and analyses. See `process` and `link`."""

"""Carries out: takes what happens from sockets and callers, has the core decide, writes, then speaks."""

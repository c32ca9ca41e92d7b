"""Tenants: what they may use, what they use, and what it costs."""

"""Follows logs while they grow, so that only their end is left to be read when somebody asks."""

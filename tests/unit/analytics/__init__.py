"""The reliability room, its warehouse and its answers."""

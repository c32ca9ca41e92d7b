"""Where the time of a run went: reading traces, and what follows from them. Pure functions over columns."""

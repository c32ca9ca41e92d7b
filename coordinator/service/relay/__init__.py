"""The relay of logs: from agents' connections to stored files, and from there to whoever reads."""

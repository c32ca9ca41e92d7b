"""Bytes of blobs on their way: signed, sent, received, paced, metered, swept."""

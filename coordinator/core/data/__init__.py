"""Data: blobs and who holds them, uploads, results, checkpoints, progress, what transfers cost."""

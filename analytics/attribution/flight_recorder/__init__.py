"""Reads the flight recorder that PyTorch keeps of its collectives, and says where the ranks parted."""

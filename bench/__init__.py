"""Measures: one file a path, ratios side by side in one run, results as JSON in bench/results/."""

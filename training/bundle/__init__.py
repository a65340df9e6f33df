"""Step 5, its end: exports the networks, calibrates on val, and writes the bundle."""

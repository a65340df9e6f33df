"""Step 5: the networks, their training, and their export to a bundle."""

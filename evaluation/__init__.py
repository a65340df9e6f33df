"""Steps 6 and 7: recall and its bounds, the gate, and the registry that the verdict moves."""

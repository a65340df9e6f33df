"""From pixels to finds: runtimes, networks, and what becomes of what they return."""

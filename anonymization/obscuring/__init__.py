"""From finds to hidden pixels: shapes, and what takes the place of what they cover."""

"""Picture formats: reading and writing pixels and metadata, safely and without loss elsewhere."""

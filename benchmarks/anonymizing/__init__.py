"""What `anonymize` costs, measured: `python -m benchmarks.anonymizing --help`."""

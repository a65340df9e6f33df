"""`python -m anonymization` is `anonymize`."""

from anonymization.job.cli import main

main()

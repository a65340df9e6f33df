"""`python -m anonymization` is `anonymize`."""

from anonymization.cli import main

main()

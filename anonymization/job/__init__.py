"""What an operator runs: the command line, and its work on any number of files."""

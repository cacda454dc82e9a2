"""The command line: one file per command, which parses, calls the function that does the work, and prints."""

"""The command line: one file a command, which parses, calls the package that does the work, and prints."""

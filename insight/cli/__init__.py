"""What the user types: one file a command; each parses, calls the package that does the work, and prints."""

"""What a saved state of a run is: its format, and how it is read, written, kept and resumed."""

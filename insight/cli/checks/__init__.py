"""What ``insight check`` looks at: processes, batches, precision, memory, disk, and a few real steps.

Each file answers one question with plain numbers; ``text.py`` prints them, ``findings.py`` collects what is wrong."""

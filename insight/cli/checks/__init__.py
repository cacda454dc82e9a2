"""What a run is judged by before it starts: processes, batches, precision, memory, disk, a few real steps.

A file answers one question with plain numbers; ``text.py`` prints them, ``findings.py`` collects mistakes."""

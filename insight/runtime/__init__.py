"""The foundation of every other folder: errors, components, files, hardware, seeds and run folders."""

"""The ground of every other folder: errors, components, files, the machine, seeds, run folders."""

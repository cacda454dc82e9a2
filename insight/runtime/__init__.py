"""What every other folder stands on: errors, components, files, the machine, seeds, run folders."""

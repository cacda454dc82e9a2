"""Text from files, folders, corpora and Python collections, as documents that are read in parts."""

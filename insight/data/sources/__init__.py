"""Text from files, folders, embedded corpora and Python collections, as documents that are read in parts."""

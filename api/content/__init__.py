"""What repositories consist of in the store, in every protocol: names, tags, the catalogue."""

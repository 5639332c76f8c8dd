"""Between the generations: what a tag written by one is to the clients of the other."""

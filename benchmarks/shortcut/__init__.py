"""Does a classifier cheat: what is left of it without the region that it should read."""

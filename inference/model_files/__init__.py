"""Files of generators, none of which is trusted: how they are read, checked and loaded."""

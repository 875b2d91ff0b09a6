"""Keys that take turns: which generation signs, which one comes, and which one is on its way out."""

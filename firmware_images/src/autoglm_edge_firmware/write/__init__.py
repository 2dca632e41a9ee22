"""Write an image to cards: choose, refuse, write, read back, and give each its own claim."""

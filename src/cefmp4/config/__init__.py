"""The settings: what they are, where they are read from, and what is written from them."""

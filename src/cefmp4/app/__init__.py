"""The composition: opens clients, picks adapters, builds the services around them."""

"""From an object to the document that describes it."""

"""The nouns: frozen facts and pure rules. No I/O, no asyncio, no clock."""

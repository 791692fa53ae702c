"""Where jobs come from: each source feeds the engine, and is told how they ended."""

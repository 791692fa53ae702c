"""The queue of jobs: the ledger that decides, and the engine that delivers."""

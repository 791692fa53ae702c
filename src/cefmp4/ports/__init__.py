"""What the logic asks of the world, one file per side. `app` puts the adapters behind them."""

"""watch(): the checks for a training loop of the user's own."""

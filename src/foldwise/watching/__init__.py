"""Watching a training loop of the user's own: what happens in it is counted, what it trains is pictured."""

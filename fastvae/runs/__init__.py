"""Opening trained runs: what of each draws, encodes or reconstructs, and what to call it."""

"""Files: where they are, reading what strangers made, writing completely or not at all, locks, the cache."""

"""Images a second of each loader."""

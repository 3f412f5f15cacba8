"""What a suite leaves behind: its record, and what every suite does around it."""

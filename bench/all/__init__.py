"""Everything that is measured, in one command and within its minutes: `python -m bench all`."""

"""How much memory is free."""

from pathlib import Path


def free_memory() -> int | None:
    """Bytes that can be had without swapping, or None where the system does not say (other than Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
        return None if kib is None else int(kib) * 1024
    except (OSError, ValueError, IndexError):
        return None

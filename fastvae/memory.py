"""Free memory."""

from pathlib import Path


def free_memory() -> int | None:
    """Bytes available without swapping, or None if the system does not report it (only Linux does)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
        return None if kib is None else int(kib) * 1024
    except (OSError, ValueError, IndexError):
        return None

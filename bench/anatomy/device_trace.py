"""How busy the device was, from a trace of torch.profiler."""

import json
from pathlib import Path

# Of the Chrome trace's events those that are work of the device; annotations lie over them.
_WORK = ("kernel", "gpu_memcpy", "gpu_memset")


def idle_share(trace: Path) -> float | None:
    """The share of the time between the first and the last kernel in which no kernel and no copy ran.

    Args:
        trace: as `torch.profiler.profile.export_chrome_trace` writes it.

    Returns:
        0 to 1, or None if nothing ran on a device.
    """
    events = json.loads(trace.read_text())["traceEvents"]
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("ph") == "X" and e.get("cat") in _WORK)
    if not spans:
        return None
    begin, until = spans[0][0], spans[0][0]
    busy = 0.0
    for start, end in spans:  # kernels of several streams overlap
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return 1 - busy / (until - begin)

"""A process that loads a VAE, reconstructs one batch and prints how long that took. `start` runs it.

`python -m fastvae.latency.first_result BEGAN RUN BATCH KIND DEVICE`, where BEGAN is the caller's `time.time()` at the
start and KIND is "accelerated" or "plain". Its last line is JSON: the measured fields of `fastvae.latency.start.Start`.
"""

import json
import re
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Reconstructs one batch; the imports are timed too."""
    began, run, batch, kind, device = float(arguments[0]), arguments[1], int(arguments[2]), *arguments[3:]
    import torch

    import fastvae

    imported = time.time()
    vae = fastvae.load(run, device=device)
    loaded = time.time()
    model = vae.accelerate(batch_sizes=(batch,)) if kind == "accelerated" else vae.to(memory_format=torch.channels_last)
    made = time.time()
    with torch.inference_mode():
        model.reconstruct(torch.zeros(batch, 3, vae.image_size, vae.image_size, device=device)).cpu()
    done = time.time()
    result = {
        "import_s": imported - began,
        "load_s": loaded - imported,
        "accelerate_s": made - loaded,
        "first_call_s": done - made,
        "total_s": done - began,
        "peak_mib": peak_mib(),
        "peak_gpu_mib": torch.cuda.max_memory_reserved() / 2**20 if device == "cuda" else None,
    }
    print(json.dumps(result))


def peak_mib() -> float:
    """Peak memory of this process, in MiB."""
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(match[1]) / 2**10
    import resource  # which Windows has not

    # Not used on Linux, where it starts at the peak of the parent process. Bytes on macOS, else KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main(sys.argv[1:])

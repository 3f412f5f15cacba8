"""Programs that take the place of stages, and what a run of them leaves."""

import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
# Python programs that stages run in place of measurements; sys.argv[1] is the file for the record.
RECORDED = "import json, sys; json.dump({'rows': [1]}, open(sys.argv[1], 'w'))"
HANGS = f"""
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{RECORDED}
print("alive", flush=True)
time.sleep(3600)
"""
OBEYS = f"""
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    print("alive", flush=True)
    time.sleep(3600)
finally:
    {RECORDED}
"""
CRASHES = "import sys; print('why'); sys.exit(3)"
IS_KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
TALKS = f"{RECORDED}; print('x' * 5_000_000)"
LEAVES_CHILDREN = """
import subprocess
for own_session in (False, True):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=own_session)
    print(child.pid, flush=True)
"""
LEAVES_CHILDREN = f"import sys\n{LEAVES_CHILDREN}\n{RECORDED}"


def smoke(on_gpu: bool = False) -> str:
    answer = {"on_gpu": on_gpu, "name": "a trial", "record": "2026-01-01-trial-all", "machine": {"gpu": None}}
    return f"import json, sys; json.dump({answer | {'failures': {}}}, open(sys.argv[1], 'w'))"


def commands(programs: dict[str, str]):
    made = {"smoke": smoke(), "gate": "print('1 passed')"} | programs

    def of_stage(stage, setting, limit_s):
        program = made.get(stage, RECORDED)
        names = ("conv_relu", "replicate_conv 1/2") if stage == "gate" else (stage,)
        return {name: [sys.executable, "-c", program, str(setting.folder / f"{stage}.json")] for name in names}

    return of_stage


def archived(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


def is_running(pid: int) -> bool:
    """A zombie does not run: whoever adopted it reads its status when it likes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

"""Memory that is kept: the tensors of a second step cost no new pages."""

import ctypes
import subprocess
import sys

import pytest

# Like a step's maps, some tensors live together and are freed together; the first steps arrange the memory.
STEPS = """
import resource, torch
from fastvae.train.kept_memory import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(mib * 2**18) for mib in (33, 40, 36, 48)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
returned = new_pages()
keep_freed_memory()
print(returned, [new_pages() for _ in range(8)][-1])
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs the malloc of glibc"
)
def test_a_step_reuses_the_memory_of_the_last_one():
    # In a process of its own, whose memory nothing else has used.
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    returned, kept = map(int, run.stdout.split())
    assert kept < returned / 2

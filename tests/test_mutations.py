"""The damage that fuzz tests do is repeatable, and is damage."""

import json
from random import Random

from tests.mutations import mutated_bytes, mutated_json

VALUE = {"blocks": {"images": {"offset": 65536, "shape": [3, 8, 8, 3]}}, "names": ["a", "b"], "rate": 0.5, "none": None}


def test_bytes():
    data = bytes(range(256)) * 4
    changed = [mutated_bytes(data, Random(seed)) for seed in range(200)]
    assert changed == [mutated_bytes(data, Random(seed)) for seed in range(200)]
    assert sum(other != data for other in changed) > 190
    assert len({len(other) for other in changed}) > 50
    assert isinstance(mutated_bytes(b"", Random(0)), bytes)


def test_json():
    before = json.dumps(VALUE)
    changed = [json.dumps(mutated_json(VALUE, Random(seed))) for seed in range(300)]
    assert changed == [json.dumps(mutated_json(VALUE, Random(seed))) for seed in range(300)]
    assert json.dumps(VALUE) == before, "the original is left alone"
    assert sum(other != before for other in changed) > 280
    assert any("NaN" in other for other in changed) and any("\\ud800" in other for other in changed)
    for odd in (None, 3, "text", [], {}):
        for seed in range(50):
            json.dumps(mutated_json(odd, Random(seed)))

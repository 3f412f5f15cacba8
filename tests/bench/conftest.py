"""A fixture of the tests of the pages about speed."""

import json

import pytest


@pytest.fixture
def folder(tmp_path):
    """folder(2026_01_03_cpu_step={...}) -> a folder with records of these names, where hyphens are underscores."""

    def with_records(**records: dict):
        for name, record in records.items():
            (tmp_path / f"{name.replace('_', '-')}.json").write_text(json.dumps(record))
        return tmp_path

    return with_records

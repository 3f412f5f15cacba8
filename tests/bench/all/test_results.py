"""The archive of a run's folder."""

from bench.all import results
from tests.bench.all.stages import archived


def test_half_a_file_and_a_huge_one_do_not_spoil_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_MAX_BYTES", 1000)
    (tmp_path / "trace.json").write_text("x" * 2000)
    (tmp_path / ".fastvae-0123456789abcdef.part.json").write_text("half")
    (tmp_path / "step.txt").write_text("table")
    content = {"a": 1}
    for _ in range(2):
        results.save(tmp_path, content)
    assert content["not_in_archive"] == ["trace.json"]
    assert {name.partition("/")[2] for name in archived(tmp_path / "all.tar.gz")} == {"all.json", "step.txt"}

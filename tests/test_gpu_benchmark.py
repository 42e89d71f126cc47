"""benchmarks/cost/gpu.py in its small form, on the CPU: what a GPU will be asked runs, and what is not the CPU's is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks" / "cost"
pytestmark = [
    pytest.mark.skipif(not (BENCHMARKS / "gpu.py").is_file(), reason="needs benchmarks/ of the repository"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    yield gpu
    sys.modules.pop("gpu", None)


def test_every_part_runs_on_a_cpu_and_agrees_with_itself(gpu, capsys):
    assert gpu.main(["--device", "cpu", "--small", "--methods", "blind"]) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    found = {(row[0], row[1]): row[2:] for row in rows if len(row) == 5}
    assert float(found["blind", "float32"][0]) > 100
    assert float(found["blind", "bfloat16"][0]) > 25 and float(found["blind", "bfloat16"][1]) > 0
    assert [row[0] for row in rows if len(row) == 3] == ["end to end", "---", "blind"]


def test_no_time_left_is_said_and_a_difference_fails(gpu, capsys, monkeypatch):
    assert gpu.main(["--device", "cpu", "--small", "--methods", "blind", "--seconds", "-1"]) == 0
    assert "blind, float32: left out, no time" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "psnr", lambda one, other: 40.0)
    monkeypatch.setattr(gpu, "restored", lambda restorer, crops: crops)
    monkeypatch.setattr(gpu, "end_to_end", lambda *_: (1.0, 1.0))
    assert gpu.main(["--device", "cpu", "--small", "--methods", "blind"]) == 1
    assert "not the CPU's: blind" in capsys.readouterr().out

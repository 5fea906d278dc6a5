"""`python -m simulator`, in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from simulator.__main__ import main


def test_a_recording_that_cannot_be_read_is_one_line_and_bad_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.gz")
    monkeypatch.setattr(sys, "argv", ["simulator", "--port", "0", "--replay", missing])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"{missing} cannot be read" in capsys.readouterr().err

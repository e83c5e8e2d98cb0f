"""The progress bar of a terminal."""

from __future__ import annotations

import pytest

from thirtytwo.progress import TerminalBar

TEXT = "loss 1.789  accuracy 36.6 %  validation 43.2 %  1,293 images/s  12.3 s"


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (200, TEXT),
        (100, "loss 1.789  accuracy 36.6 %  validation 43.2 %"),
        (80, "loss 1.789  accuracy 36.6 %"),
        (50, ""),
    ],
)
def test_on_a_narrow_terminal_the_last_values_are_left_out(
    width: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    bar = TerminalBar("epoch 10/10", 40)
    bar.update(40, title="epoch 10/10", text=TEXT)
    bar.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 10/10 ━━━━━━━━━━━━━━━━━━━━ 100\N{NO-BREAK SPACE}% ")
    assert line[38:].rsplit(" ", 1)[0].strip() == shown

"""What a results file says made it."""

import sys

import pytest

from experiments.record import words


@pytest.mark.parametrize("line", [["--output", "a/b.json", "--cases=14k", "--busy"], ["--cases=14k", "--output=a/b.json", "--busy"]])
def test_a_command_names_no_folder(monkeypatch, line):
  monkeypatch.setattr(sys, "argv", ["bench", *line])
  assert words(without=("output",)) == ["--cases=14k", "--busy"]

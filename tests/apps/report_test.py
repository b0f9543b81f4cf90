"""The report: complete, self-contained, honest, and clear when something is missing."""

import html.parser
import json
import re

import pytest

from silky_jax.apps import report, verdict
from silky_jax.config import UserError


class _Page(html.parser.HTMLParser):
  """Collects what a page loads and whether its tags close."""

  def __init__(self):
    super().__init__()
    self.sources, self.open, self.counts = [], [], {}

  def handle_starttag(self, tag, attrs):
    self.counts[tag] = self.counts.get(tag, 0) + 1
    self.sources += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "poster", "action")]
    if tag not in ("meta", "img", "br", "line", "rect", "polyline", "link", "input", "hr"):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.counts[tag] = self.counts.get(tag, 0) + 1

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def _read(path):
  page = _Page()
  page.feed(path.read_text())
  assert not page.open
  return page


def test_it_is_whole_and_asks_nothing_of_the_outside(run_dir):
  path = report.write_report(run_dir)
  page, text = _read(path), path.read_text()
  assert (page.counts["video"], page.counts["img"]) == (2, 2)
  assert page.counts["svg"] >= 2 + 2 + 4  # opening curves, training curves, stage bars
  assert page.sources and all(source.startswith("data:") for source in page.sources)
  assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]|@import|<script|<link|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
  for words in (
    *("the avatar", "nearest frame", "aligned frame", "truth, 1 px aside", "truth, blurred", "LPIPS VGG"),
    *("Held-out tail", "Held-out blocks", "26.00", "21.00", "What is weak", "Six views", "97.00 %", "Time and memory", "3.00 GiB"),
    *("lips", "lpips version", "0.1", "head &lt;and&gt; neck", "14,000 Gaussians", "number 700", "19.50 dB", "Training"),
    "Does it follow the face?",
  ):
    assert words in text, words
  assert not list(run_dir.glob(".*part*"))


def test_goals_say_reached_and_missed(run_dir):
  metrics = json.loads((run_dir / "metrics.json").read_text())
  reached = {goal.name: goal.reached for goal in verdict.goals(metrics)}
  assert reached["PSNR, poses never seen"] and reached["above the nearest frame"] and reached["lips follow"]
  assert reached["lids follow"] is False and reached["LPIPS against nearest frame"] is False
  del metrics["views"]
  assert {goal.name: goal.reached for goal in verdict.goals(metrics)}["largest hole, worst view"] is None
  assert [goal.reached for goal in verdict.goals({})] == [None] * 8


def test_weaknesses_are_named(run_dir):
  metrics = json.loads((run_dir / "metrics.json").read_text())
  said = " ".join(verdict.weaknesses(metrics))
  for words in ("lids follow is 0.500, wanted correlation 0.6", "by 3.0 dB on poses never seen", "by 5.0 dB on the held-out blocks"):
    assert words in said, words
  for words in (
    "truth moved by one pixel (26.0 against 27.0 dB)",
    "mouth is 3.0 dB worse",
    "1 renders",
    "yaw -12 to 9",
    "400x300",
  ):
    assert words in said, words
  assert verdict.weaknesses({})  # never claims to have no weakness


def test_optional_parts_may_be_missing(run_dir):
  for name in ("worst.png", "views.png", "sweep.mp4", "curves.json"):
    (run_dir / "evaluation" / name).unlink()
  (run_dir / "train" / "metrics.jsonl").unlink()
  page = _read(report.write_report(run_dir))
  assert page.counts["video"] == 1


def test_needed_parts_are_named(run_dir):
  (run_dir / "heldout.mp4").unlink()
  with pytest.raises(UserError, match=r"heldout\.mp4.* is missing"):
    report.write_report(run_dir)
  (run_dir / "metrics.json").write_text("{")
  with pytest.raises(UserError, match=r"metrics\.json is no JSON"):
    report.write_report(run_dir)
  (run_dir / "metrics.json").unlink()
  with pytest.raises(UserError, match=r"metrics\.json is missing.*eval"):
    report.write_report(run_dir)
  assert not (run_dir / "report.html").exists()

"""The team of threads of one call, on pools of every temper: at once on the caller's own thread, never, on threads, late."""

import shutil
import subprocess
from pathlib import Path

import pytest
from silky_kernels import build, native

_PROGRAM = r"""
#include <cstdio>
#include <cstring>
#include <vector>

#include "team.h"

int main(int, char** arguments) {
  const char* temper = arguments[1];
  std::vector<std::thread> threads;
  std::vector<std::function<void()>> kept;
  auto schedule = [&](std::function<void()> work) {
    if (!std::strcmp(temper, "inline")) work();
    if (!std::strcmp(temper, "threads")) threads.emplace_back(work);
    if (!std::strcmp(temper, "late")) kept.push_back(work);
    if (!std::strcmp(temper, "mixed")) {
      if (kept.size() % 2) work(); else threads.emplace_back(work);
      kept.push_back(work);
    }
  };
  int64_t wrong = 0;
  for (int round = 0; round < 50; ++round) {
    silky::Team team(3, 2, schedule);
    for (int loop = 0; loop < 3; ++loop) {  // one more than it was made for: the caller alone
      std::vector<std::atomic<int>> seen(100);
      team.run(100, [&](int64_t i) { ++seen[i]; });
      for (auto& count : seen) wrong += count != 1;
    }
  }
  for (auto& work : kept) work();  // helpers that start when all is done
  for (auto& thread : threads) thread.join();
  std::printf("%ld\n", long(wrong));
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
  compiler = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
  if compiler is None:
    pytest.skip("no C++ compiler on the PATH")
  folder = tmp_path_factory.mktemp("team")
  (folder / "main.cc").write_text(_PROGRAM)
  csrc = Path(native.__file__).parent / "csrc"
  command = [compiler, *build.FLAGS, "-pthread", "-I", str(csrc), str(folder / "main.cc"), "-o", str(folder / "main")]
  subprocess.run(command, check=True, timeout=120)
  return folder / "main"


@pytest.mark.parametrize("temper", ["inline", "threads", "late", "mixed", "never"])
def test_every_task_is_done_once_and_the_call_returns(program, temper):
  """Eigen's pool runs a function at once where its queue is full; a caller that helped itself would wait for ever."""
  done = subprocess.run([str(program), temper], capture_output=True, text=True, timeout=60, check=True)
  assert done.stdout.strip() == "0"

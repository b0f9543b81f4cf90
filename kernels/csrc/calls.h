// What the custom calls share: the pool's threads, the choice of instruction set, errors.
#pragma once
#include <exception>
#include <new>
#include <string>

#include "splat.h"
#include "team.h"
#include "xla/ffi/api/ffi.h"

namespace silky {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Whole = ffi::Buffer<ffi::S32>;
using Out = ffi::Result<Floats>;

enum Simd : int64_t { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };
bool runs(int64_t simd);
Path path_of(int64_t simd);

inline ffi::Error wrong(const std::string& what) { return ffi::Error::InvalidArgument("silky_kernels: " + what); }

// XLA catches no exception: one would end the process.
template <class Call>
ffi::Error guarded(Call&& call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return wrong("not enough memory for the tile pairs; are the splats far too large?");
  } catch (const std::exception& error) {
    return wrong(error.what());
  }
}

constexpr int64_t kLoops = 8;  // per picture, at most

inline Team team_of(ffi::ThreadPool pool, int64_t pictures) {
  const int64_t helpers = std::max<int64_t>(0, pool.num_threads() - 1);
  return Team(helpers, kLoops * pictures, [&pool](std::function<void()> work) { pool.Schedule(std::move(work)); });
}

}  // namespace silky

// The choice of instruction set.
#include "calls.h"

namespace silky {

bool runs(int64_t simd) {
#if defined(__x86_64__)
  if (simd == kAvx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
  if (simd == kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return simd == kPortable;
}

Path path_of(int64_t simd) {
#if defined(__x86_64__)
  if (simd == kAvx512) return avx512_path();
  if (simd == kAvx2) return avx2_path();
#endif
  return portable_path();
}

}  // namespace silky

extern "C" int silky_runs(int simd) { return silky::runs(simd); }

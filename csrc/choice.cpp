#include "choice.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace peephole {

namespace {

std::vector<const Kernels*> find_supported() {
  std::vector<const Kernels*> supported;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
#if defined(PEEPHOLE_AVX512BF16)
  if (avx512 && __builtin_cpu_supports("avx512bf16")) supported.push_back(&kernels_avx512bf16);
#endif
  if (avx512) supported.push_back(&kernels_avx512);
  if (avx2) supported.push_back(&kernels_avx2);
  supported.push_back(&kernels_baseline);
#elif defined(__aarch64__)
  supported.push_back(&kernels_neon);
#else
  supported.push_back(&kernels_baseline);
#endif
  return supported;
}

const Kernels& choose() {
  const char* wanted = std::getenv("PEEPHOLE_CPU");
  if (wanted == nullptr || *wanted == '\0') return *supported().front();
  std::string names;
  for (const Kernels* each : supported()) {
    if (std::string(each->instruction_set) == wanted) return *each;
    names += (names.empty() ? "" : ", ") + std::string(each->instruction_set);
  }
  throw std::runtime_error(std::string("PEEPHOLE_CPU=") + wanted +
                           ": this build and this processor have " + names);
}

}  // namespace

const std::vector<const Kernels*>& supported() {
  static const std::vector<const Kernels*> all = find_supported();
  return all;
}

const Kernels& chosen() {
  static const Kernels& kernels = choose();
  return kernels;
}

}  // namespace peephole

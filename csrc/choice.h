// Which instruction set's kernels run.
#pragma once

#include <vector>

#include "kernels.h"

namespace peephole {

// Those that this build has and this processor runs, best first.
const std::vector<const Kernels*>& supported();

// The best, or the one that PEEPHOLE_CPU names. Throws std::runtime_error where there is no such.
const Kernels& chosen();

template <class T>
const KernelsOf<T>& kernels();
template <>
inline const KernelsOf<float>& kernels<float>() {
  return chosen().float32;
}
template <>
inline const KernelsOf<double>& kernels<double>() {
  return chosen().float64;
}
// To be asked only where there are some.
template <>
inline const KernelsOf<BFloat16>& kernels<BFloat16>() {
  return *chosen().bfloat16;
}

}  // namespace peephole

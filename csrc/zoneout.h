// Zoneout (Krueger et al. 2017): units that keep a share of their old state.
#pragma once

#include "kernels.h"
#include "product.h"

namespace {

using peephole::Zoneout;

template <class T>
inline bool any(const Zoneout<T>& z) {
  return z.mask || z.shares || z.share != 0;
}

// The shares of units j to j + count of a row.
template <class T>
inline Vec<T> shares(const Zoneout<T>& z, int64_t row, int64_t hidden, int64_t j, int count) {
  if (z.shares) return load(z.shares + row * hidden + j, count);
  if (!z.mask) return broadcast(z.share);
  Vec<T> v{};
  const uint8_t* from = z.mask + row * hidden + j;
  for (int l = 0; l < count && l < kLanes<T>; ++l) v[l] = T(from[l] != 0);
  return v;
}

// The old state and the new, mixed by the old one's share; a mask chooses, whatever the other is.
template <class T>
inline Vec<T> zoned_out(const Zoneout<T>& z, Vec<T> old, Vec<T> fresh, Vec<T> share) {
  Vec<T> half = broadcast(T(0.5)), one = broadcast(T(1));
  if (z.mask) return share > half ? old : fresh;
  // As torch.lerp, which is exact at both ends.
  Vec<T> near_fresh = multiply_add(share, old - fresh, fresh);
  Vec<T> near_old = old - (old - fresh) * (one - share);
  return share < half ? near_fresh : near_old;
}

// The derivative of what is mixed, taken apart: the old state's part.
template <class T>
inline Vec<T> held_derivative(const Zoneout<T>& z, Vec<T> share, Vec<T> d) {
  if (z.mask) return share > broadcast(T(0.5)) ? d : Vec<T>{};
  return d * share;
}

// The new state's part.
template <class T>
inline Vec<T> fresh_derivative(const Zoneout<T>& z, Vec<T> share, Vec<T> d) {
  if (z.mask) return share > broadcast(T(0.5)) ? Vec<T>{} : d;
  return d * (broadcast(T(1)) - share);
}

}  // namespace

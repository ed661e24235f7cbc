// Zoneout (Krueger et al. 2017): units that keep a share of their old state.
#pragma once

#include "kernels.h"
#include "product.h"

namespace {

using peephole::Zoneout;

template <class S>
inline bool any(const Zoneout<S>& z) {
  return z.mask || z.shares || z.share != 0;
}

// The shares of units j to j + count of a row.
template <class S, class Count>
inline Vec<S> shares(const Zoneout<S>& z, int64_t row, int64_t hidden, int64_t j, Count count) {
  if (z.shares) return load(z.shares + row * hidden + j, count);
  if (!z.mask) return broadcast(z.share);
  Vec<S> v{};
  const uint8_t* from = z.mask + row * hidden + j;
  for (int l = 0; l < count && l < kLanes<S>; ++l) v[l] = Arithmetic<S>(from[l] != 0);
  return v;
}

// The old state and the new, mixed by the old one's share; a mask chooses, whatever the other is.
template <class S>
inline Vec<S> zoned_out(const Zoneout<S>& z, Vec<S> old, Vec<S> fresh, Vec<S> share) {
  Vec<S> half = broadcast(Arithmetic<S>(0.5)), one = broadcast(Arithmetic<S>(1));
  if (z.mask) return share > half ? old : fresh;
  // As torch.lerp, which is exact at both ends.
  Vec<S> near_fresh = multiply_add(share, old - fresh, fresh);
  Vec<S> near_old = old - (old - fresh) * (one - share);
  return share < half ? near_fresh : near_old;
}

// The derivative of what is mixed, taken apart: the old state's part.
template <class S>
inline Vec<S> held_derivative(const Zoneout<S>& z, Vec<S> share, Vec<S> d) {
  if (z.mask) return share > broadcast(Arithmetic<S>(0.5)) ? d : Vec<S>{};
  return d * share;
}

// The new state's part.
template <class S>
inline Vec<S> fresh_derivative(const Zoneout<S>& z, Vec<S> share, Vec<S> d) {
  if (z.mask) return share > broadcast(Arithmetic<S>(0.5)) ? Vec<S>{} : d;
  return d * (broadcast(Arithmetic<S>(1)) - share);
}

}  // namespace

// The product of a few rows with a packed matrix: where nearly all of the time goes.
//
// A matrix is packed into panels, a panel into C columns of vectors. A panel of the LSTM's forward
// pass, for 16 lanes, holds 16 hidden units by their 4 gates (C = 4), so that all sums of a unit
// are at hand when its state is computed:
//
//            column 0   column 1   column 2   column 3
//            i          f          g          o         of units 16 p to 16 p + 15
//     k = 0  [16 lanes] [16 lanes] [16 lanes] [16 lanes]
//     k = 1  [16 lanes] [16 lanes] [16 lanes] [16 lanes]      memory runs from left to right,
//     ...                                                     then down, then to the next panel
//
// A lane is one number. Of bfloat16 it is a pair, for k and k + 1 (lane.h), and a line of the
// drawing stands for both; such numbers are added up in float32.
//
// A tile of R rows by C columns keeps its sums in registers while it runs down kDepth values of k,
// starting from zero; the sums of such blocks are then added up. That is faster than one long run,
// since a block of weights stays in the first-level cache for all rows, and more exact. The order
// in which an element is summed does not depend on the other rows, nor on where its row lies in
// the batch: results are the same bits in any company.
#pragma once

#include "lane.h"
#include "vector.h"

namespace {

// Steps of k that a tile takes at once: 64 x 64 weights of 4 bytes are half of a 32 KiB cache.
template <class S>
constexpr int kDepth = 64 * Lane<S>::kPerLane;

// Rows that share the sums' buffer, so that it stays in the first-level cache.
constexpr int kRowsAtOnce = 48;

// Rows of a tile: with C columns, its sums take three quarters of the registers.
template <int C>
constexpr int kTileRows =
#if defined(__AVX512F__) || defined(__aarch64__)
    C == 1 ? 12 : 24 / C;
#else
    12 / C;
#endif

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// Where the columns of a panel lie in a matrix of weights.
//
// Panel p's column c, lane l is output p * panel_step + c * column_step + l; it exists where
// p * panel_step + c * lane_step + l is less than `units`, lane_step being 0 where the columns are
// gates (all have the same units) and the number of lanes where they are more units.
template <class S>
struct Matrix {
  const S* weights = nullptr;
  int64_t row = 0;          // numbers from one row of `weights` to the next
  bool transposed = false;  // whether an output is a row of `weights`, and not a column
  int64_t depth = 0;        // K
  int64_t units = 0;
  int columns = 0;          // C
  int64_t panel_step = 0;
  int64_t column_step = 0;
  int64_t lane_step = 0;

  int64_t panels() const { return (units + panel_step - 1) / panel_step; }

  // A column's first output, and how many of its lanes are one.
  int64_t first(int64_t panel, int c) const { return panel * panel_step + c * column_step; }
  int outputs(int64_t panel, int c) const {
    int64_t left = units - panel * panel_step - c * lane_step;
    return left > kLanes<S> ? kLanes<S> : left < 0 ? 0 : int(left);
  }
  int64_t panel_size() const { return round_up(depth, Lane<S>::kPerLane) * columns * kLanes<S>; }
};

// An output is a row of weights [gates * units, K]; a panel holds each gate of a vector of units.
template <class S>
Matrix<S> gates_by_unit(const S* weights, int64_t units, int64_t depth, int gates) {
  return {weights, depth, true, depth, units, gates, kLanes<S>, units, 0};
}

// Vectors of units a panel, up to 4: as many as leave the last panel the least room.
template <class S>
int panel_vectors(int64_t units) {
  int64_t vectors = (units + kLanes<S> - 1) / kLanes<S>;
  if (vectors <= 4) return int(larger(1, vectors));
  int best = 4;
  for (int c = 3; c > 1; --c)
    if (round_up(vectors, c) < round_up(vectors, best)) best = c;
  return best;
}

// An output is a row of weights [units, K]; a panel holds vectors of units.
template <class S>
Matrix<S> rows_of(const S* weights, int64_t units, int64_t depth) {
  int c = panel_vectors<S>(units);
  return {weights, depth, true, depth, units, c, c * kLanes<S>, kLanes<S>, kLanes<S>};
}

// An output is a column of weights [K, units]; a panel holds vectors of units.
template <class S>
Matrix<S> columns_of(const S* weights, int64_t units, int64_t depth) {
  int c = panel_vectors<S>(units);
  return {weights, units, false, depth, units, c, c * kLanes<S>, kLanes<S>, kLanes<S>};
}

// The lanes of a, from 0 on, and then those of b, in the order that `from` tells.
template <class T>
inline Vec<T> shuffle(Vec<T> a, Vec<T> b, IntVec<T> from) {
#if defined(__clang__)
  Vec<T> result;
  for (int l = 0; l < kLanes<T>; ++l)
    result[l] = from[l] < kLanes<T> ? a[from[l]] : b[from[l] - kLanes<T>];
  return result;
#else
  return __builtin_shuffle(a, b, from);
#endif
}

// Swap rows and columns of a square of lanes x lanes numbers: each round exchanges the halves of
// pairs of rows that lie twice as close as those of the round before.
template <class T>
inline void transpose(Vec<T> (&square)[kLanes<T>]) {
  constexpr int L = kLanes<T>;
  IntVec<T> lane;
  for (int l = 0; l < L; ++l) lane[l] = l;
#pragma GCC unroll 8
  for (int half = L / 2; half >= 1; half /= 2) {
    IntVec<T> low = (lane & half) ? lane - half + L : lane;
    IntVec<T> high = (lane & half) ? lane + L : lane + half;
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if (i & half) continue;
      Vec<T> a = square[i], b = square[i + half];
      square[i] = shuffle<T>(a, b, low);
      square[i + half] = shuffle<T>(a, b, high);
    }
  }
}

// A square of lanes, rows and columns swapped: the first `columns` of `rows` rows, which `row(l)`
// gives. What lies outside is zero.
template <class S, class Row>
inline void pack_square(const Row& row, int64_t rows, int64_t columns, S* to, int64_t step) {
  constexpr int L = kLanes<S>;
  Vec<S> square[L];
  if (rows >= L) {
#pragma GCC unroll 16
    for (int l = 0; l < L; ++l) square[l] = row(l);
  } else {
    for (int l = 0; l < L; ++l) square[l] = l < rows ? row(l) : Vec<S>{};
  }
  transpose<Arithmetic<S>>(square);
  if (columns >= L) {
#pragma GCC unroll 16
    for (int k = 0; k < L; ++k) Lane<S>::store(to + k * step, square[k]);
  } else {
    for (int k = 0; k < columns; ++k) Lane<S>::store(to + k * step, square[k]);
  }
}

// How many lanes hold so many numbers.
template <class S>
inline int64_t lanes_of(int64_t numbers) {
  return (numbers + Lane<S>::kPerLane - 1) / Lane<S>::kPerLane;
}

// Pack `depth` steps from k on of one panel, to [depth][C][lanes].
template <class S>
void pack(const Matrix<S>& m, int64_t panel, int64_t k, int64_t depth, S* to) {
  constexpr int L = kLanes<S>, D = Lane<S>::kPerLane;
  const int64_t step = m.columns * L;
  for (int c = 0; c < m.columns; ++c) {
    int outputs = m.outputs(panel, c);
    int64_t first = m.first(panel, c);
    S* column = to + c * L * D;
    if (!outputs) {
      for (int64_t i = 0; i < depth; i += D) Lane<S>::store(column + i * step, Vec<S>{});
    } else if (m.transposed) {
      for (int64_t i = 0; i < depth; i += L * D) {
        const S* from = m.weights + first * m.row + k + i;
        auto row = [&](int l) { return Lane<S>::along(from + l * m.row, depth - i); };
        pack_square(row, outputs, lanes_of<S>(depth - i), column + i * step, step * D);
      }
    } else {
      const S* from = m.weights + k * m.row + first;
      for (int64_t i = 0; i < depth; i += D)
        Lane<S>::store(column + i * step,
                       Lane<S>::across(from + i * m.row, m.row, depth - i, outputs));
    }
  }
}

// sums[r][c] = rows[r][k to k + depth] * block, or that added to sums, whose rows are `step` apart.
template <class S, int R, int C>
inline void tile(const S* const* rows, int64_t k, int64_t depth, const S* block,
                 Arithmetic<S>* sums, int64_t step, bool first) {
  constexpr int L = kLanes<S>, D = Lane<S>::kPerLane;
  Vec<S> sum[R][C];
  const S* row[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    row[r] = rows[r] + k;
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = Vec<S>{};
  }
  auto add = [&](int64_t i, auto broadcast) __attribute__((always_inline)) {
    Vec<S> weight[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) weight[c] = Lane<S>::load(block + c * L * D);
    block += C * L * D;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec<S> value = broadcast(row[r] + i);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c)
        sum[r][c] = Lane<S>::multiply_add(value, weight[c], sum[r][c]);
    }
  };
  int64_t i = 0;
  for (; i + D <= depth; i += D) add(i, [](const S* at) { return Lane<S>::broadcast(at); });
  if constexpr (D > 1)
    if (i < depth) add(i, [](const S* at) { return Lane<S>::broadcast_one(at); });
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      Arithmetic<S>* to = sums + r * step + c * L;
      store(to, first ? sum[r][c] : load(to) + sum[r][c]);
    }
  }
}

template <class S, int R, int C>
inline void last_tile(int64_t count, const S* const* rows, int64_t k, int64_t depth,
                      const S* block, Arithmetic<S>* sums, int64_t step, bool first) {
  if constexpr (R > 0) {
    if (count == R) return tile<S, R, C>(rows, k, depth, block, sums, step, first);
    last_tile<S, R - 1, C>(count, rows, k, depth, block, sums, step, first);
  }
}

// sums [count][C][lanes] = rows [count][K] * one panel.
//
// `packed` is the whole matrix, or null where it is not worth it, as for a single step: then each
// block is packed into `scratch` (kDepth * C * lanes numbers) and used at once.
template <class S, int C>
void multiply(const Matrix<S>& m, const S* packed, S* scratch, int64_t panel,
              const S* const* rows, int64_t count, Arithmetic<S>* sums) {
  constexpr int R = kTileRows<C>;
  constexpr int L = kLanes<S>;
  if (!m.depth) zero(sums, count * C * L);
  for (int64_t k = 0; k < m.depth; k += kDepth<S>) {
    int64_t depth = smaller(kDepth<S>, m.depth - k);
    const S* block = scratch;
    if (packed)
      block = packed + panel * m.panel_size() + k * C * L;
    else
      pack(m, panel, k, depth, scratch);
    bool first = k == 0;
    int64_t r = 0;
    for (; r + R <= count; r += R)
      tile<S, R, C>(rows + r, k, depth, block, sums + r * C * L, C * L, first);
    last_tile<S, R - 1, C>(count - r, rows + r, k, depth, block, sums + r * C * L, C * L, first);
  }
}

// Rows up to which a matrix that need not be packed is read as it lies: so many cost as much as
// packing it on the way.
constexpr int64_t kDotRows = 4;

// sums [C][lanes] = row [K] * one panel whose outputs are rows of weights: a dot product for each,
// whose order is not that of tiles.
template <class S>
void multiply_by_dots(const Matrix<S>& m, int64_t panel, const S* row, Arithmetic<S>* sums) {
  constexpr int L = kLanes<S>, step = L * Lane<S>::kPerLane;
  for (int c = 0; c < m.columns; ++c) {
    int outputs = m.outputs(panel, c);
    const S* from = m.weights + m.first(panel, c) * m.row;
    Vec<S> square[L] = {};
    int64_t k = 0;
    if (outputs == L)
      for (; k + step <= m.depth; k += step) {
        Vec<S> values = Lane<S>::load(row + k);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l)
          square[l] =
              Lane<S>::multiply_add(Lane<S>::load(from + l * m.row + k), values, square[l]);
      }
    for (; k < m.depth; k += step) {
      int64_t left = m.depth - k;
      Vec<S> values = Lane<S>::along(row + k, left);
      for (int l = 0; l < outputs; ++l)
        square[l] = Lane<S>::multiply_add(Lane<S>::along(from + l * m.row + k, left), values,
                                          square[l]);
    }
    transpose<Arithmetic<S>>(square);
    Vec<S> sum = square[0];
#pragma GCC unroll 16
    for (int l = 1; l < L; ++l) sum += square[l];
    store(sums + c * L, sum);
  }
}

}  // namespace

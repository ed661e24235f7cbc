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
// A tile of R rows by C columns keeps its sums in registers while it runs down kDepth values of k,
// starting from zero; the sums of such blocks are then added up. That is faster than one long run,
// since a block of weights stays in the first-level cache for all rows, and more exact. The order
// in which an element is summed does not depend on the other rows, nor on where its row lies in
// the batch: results are the same bits in any company.
#pragma once

#include "vector.h"

namespace {

// Steps of k that a tile takes at once: 64 x 64 weights of 4 bytes are half of a 32 KiB cache.
constexpr int kDepth = 64;

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
template <class T>
struct Matrix {
  const T* weights = nullptr;
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
    return left > kLanes<T> ? kLanes<T> : left < 0 ? 0 : int(left);
  }
  int64_t panel_size() const { return depth * columns * kLanes<T>; }
};

// An output is a row of weights [gates * units, K]; a panel holds each gate of a vector of units.
template <class T>
Matrix<T> gates_by_unit(const T* weights, int64_t units, int64_t depth, int gates) {
  return {weights, depth, true, depth, units, gates, kLanes<T>, units, 0};
}

// Vectors of units a panel, up to 4: as many as leave the last panel the least room.
template <class T>
int panel_vectors(int64_t units) {
  int64_t vectors = (units + kLanes<T> - 1) / kLanes<T>;
  if (vectors <= 4) return int(larger(1, vectors));
  int best = 4;
  for (int c = 3; c > 1; --c)
    if (round_up(vectors, c) < round_up(vectors, best)) best = c;
  return best;
}

// An output is a row of weights [units, K]; a panel holds vectors of units.
template <class T>
Matrix<T> rows_of(const T* weights, int64_t units, int64_t depth) {
  int c = panel_vectors<T>(units);
  return {weights, depth, true, depth, units, c, c * kLanes<T>, kLanes<T>, kLanes<T>};
}

// An output is a column of weights [K, units]; a panel holds vectors of units.
template <class T>
Matrix<T> columns_of(const T* weights, int64_t units, int64_t depth) {
  int c = panel_vectors<T>(units);
  return {weights, units, false, depth, units, c, c * kLanes<T>, kLanes<T>, kLanes<T>};
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
      square[i] = __builtin_shuffle(a, b, low);
      square[i + half] = __builtin_shuffle(a, b, high);
    }
  }
}

// Lanes x lanes numbers of `from`, rows and columns swapped; what lies outside is zero.
template <class T>
inline void pack_square(const T* from, int64_t row, int64_t outputs, int64_t depth, T* to,
                        int64_t step) {
  constexpr int L = kLanes<T>;
  Vec<T> square[L];
  if (outputs >= L && depth >= L) {
#pragma GCC unroll 16
    for (int l = 0; l < L; ++l) square[l] = load(from + l * row);
  } else {
    for (int l = 0; l < L; ++l)
      square[l] = l < outputs ? load(from + l * row, int(smaller(depth, L))) : Vec<T>{};
  }
  transpose<T>(square);
  if (depth >= L) {
#pragma GCC unroll 16
    for (int k = 0; k < L; ++k) store(to + k * step, square[k]);
  } else {
    for (int k = 0; k < depth; ++k) store(to + k * step, square[k]);
  }
}

// Pack `depth` steps from k on of one panel, to [depth][C][lanes].
template <class T>
void pack(const Matrix<T>& m, int64_t panel, int64_t k, int64_t depth, T* to) {
  constexpr int L = kLanes<T>;
  for (int c = 0; c < m.columns; ++c) {
    int outputs = m.outputs(panel, c);
    int64_t first = m.first(panel, c);
    T* column = to + c * L;
    int64_t step = m.columns * L;
    if (!outputs) {
      for (int64_t i = 0; i < depth; ++i) store(column + i * step, Vec<T>{});
    } else if (m.transposed) {
      for (int64_t i = 0; i < depth; i += L)
        pack_square(m.weights + first * m.row + k + i, m.row, outputs, depth - i,
                    column + i * step, step);
    } else {
      const T* from = m.weights + k * m.row + first;
      for (int64_t i = 0; i < depth; ++i)
        store(column + i * step, load(from + i * m.row, outputs));
    }
  }
}

// sums[r][c] = rows[r][k to k + depth] * block, or that added to sums, whose rows are `step` apart.
template <class T, int R, int C>
inline void tile(const T* const* rows, int64_t k, int64_t depth, const T* block, T* sums,
                 int64_t step, bool first) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[R][C];
  const T* row[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    row[r] = rows[r] + k;
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = Vec<T>{};
  }
  for (int64_t i = 0; i < depth; ++i) {
    Vec<T> weight[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) weight[c] = load(block + c * L);
    block += C * L;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec<T> value = broadcast(row[r][i]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = multiply_add(value, weight[c], sum[r][c]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      T* to = sums + r * step + c * L;
      store(to, first ? sum[r][c] : load<T>(to) + sum[r][c]);
    }
  }
}

template <class T, int R, int C>
inline void last_tile(int64_t count, const T* const* rows, int64_t k, int64_t depth,
                      const T* block, T* sums, int64_t step, bool first) {
  if constexpr (R > 0) {
    if (count == R) return tile<T, R, C>(rows, k, depth, block, sums, step, first);
    last_tile<T, R - 1, C>(count, rows, k, depth, block, sums, step, first);
  }
}

// sums [count][C][lanes] = rows [count][K] * one panel.
//
// `packed` is the whole matrix, or null where it is not worth it, as for a single step: then each
// block is packed into `scratch` (kDepth * C * lanes numbers) and used at once.
template <class T, int C>
void multiply(const Matrix<T>& m, const T* packed, T* scratch, int64_t panel,
              const T* const* rows, int64_t count, T* sums) {
  constexpr int R = kTileRows<C>;
  constexpr int L = kLanes<T>;
  if (!m.depth) zero(sums, count * C * L);
  for (int64_t k = 0; k < m.depth; k += kDepth) {
    int64_t depth = smaller(kDepth, m.depth - k);
    const T* block = scratch;
    if (packed)
      block = packed + panel * m.panel_size() + k * C * L;
    else
      pack(m, panel, k, depth, scratch);
    bool first = k == 0;
    int64_t r = 0;
    for (; r + R <= count; r += R)
      tile<T, R, C>(rows + r, k, depth, block, sums + r * C * L, C * L, first);
    last_tile<T, R - 1, C>(count - r, rows + r, k, depth, block, sums + r * C * L, C * L, first);
  }
}

// Rows up to which a matrix that need not be packed is read as it lies: so many cost as much as
// packing it on the way.
constexpr int64_t kDotRows = 4;

// sums [C][lanes] = row [K] * one panel whose outputs are rows of weights: a dot product for each,
// whose order is not that of tiles.
template <class T>
void multiply_by_dots(const Matrix<T>& m, int64_t panel, const T* row, T* sums) {
  constexpr int L = kLanes<T>;
  for (int c = 0; c < m.columns; ++c) {
    int outputs = m.outputs(panel, c);
    const T* from = m.weights + m.first(panel, c) * m.row;
    Vec<T> square[L] = {};
    int64_t k = 0;
    if (outputs == L)
      for (; k + L <= m.depth; k += L) {
        Vec<T> values = load(row + k);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l)
          square[l] = multiply_add(load(from + l * m.row + k), values, square[l]);
      }
    for (; k < m.depth; k += L) {
      int count = int(smaller(L, m.depth - k));
      Vec<T> values = load(row + k, count);
      for (int l = 0; l < outputs; ++l)
        square[l] = multiply_add(load(from + l * m.row + k, count), values, square[l]);
    }
    transpose<T>(square);
    Vec<T> sum = square[0];
#pragma GCC unroll 16
    for (int l = 1; l < L; ++l) sum += square[l];
    store(sums + c * L, sum);
  }
}

}  // namespace

// Weights' gradients: sums over all steps of what a gate got times what it looked at.
//
// result [outputs, columns] = sum over steps n of left[n][outputs] x right(n)[columns]
//
// right(n) is found through a pointer for each step, so that "the state before step n" needs no
// copy: it is a row of all states, or an initial one, or nothing. The same tiles as in product.h
// do the work: kOuterDepth steps of `left` are turned on their side, so that an output is a row,
// and as many of `right` are packed panel by panel. Outputs are dealt out to threads; an element is
// summed in the order of the steps, whatever their number.
#pragma once

#include "part.h"

namespace {

template <class S>
constexpr int kOuterDepth = 256 * Lane<S>::kPerLane;

template <class S>
struct OuterTask {
  const Outer<S>& o;
  int64_t share;  // outputs of a task
  Memory& memory;
  int64_t each;  // bytes of a task
};

template <class S>
struct OuterSpace {
  using T = Arithmetic<S>;

  int64_t stride;  // from one output to the next
  S* left;         // [share][steps], outputs by steps
  S* right;        // [steps][4 lanes], a panel
  T* last;         // [share][4 lanes], a panel that is not whole
  const S** rows;  // [share]

  T* sums;         // [share][columns] of each factor, where its result is narrower

  OuterSpace(Arena& arena, const Outer<S>& o, int64_t share)
      : stride(padded<S>(smaller(o.steps, kOuterDepth<S>))),
        left(arena.take<S>(round_up(share, kLanes<S>) * stride)),
        right(arena.take<S>(stride * 4 * kLanes<S>)),
        last(arena.take<T>(share * 4 * kLanes<S>)),
        rows(arena.take<const S*>(share)) {
    int64_t columns = 0;
    for (int k = 0; k < o.count; ++k) columns += o.factors[k].columns;
    sums = kNarrow<S> ? arena.take<T>(share * columns) : nullptr;
  }

  // A factor's sums so far, for a task whose first output is `begin`.
  T* sums_of(const Outer<S>& o, int factor, int64_t share, int64_t begin) const {
    if constexpr (kNarrow<S>) {
      int64_t before = 0;
      for (int k = 0; k < factor; ++k) before += o.factors[k].columns;
      return sums + share * before;
    } else {
      return o.factors[factor].result + begin * o.factors[factor].columns;
    }
  }
};

// Columns j to j + count of the right side's row of a step.
template <class S>
Vec<S> right_of(const OuterFactor<S>& f, int64_t n, int64_t j, int count) {
  Vec<S> v = f.rows[n] ? load(f.rows[n] + j, count) : Vec<S>{};
  if (f.masks) v *= load(f.masks[n] + j, count);
  return v;
}

// `depth` steps of one panel of the right side, [depth][C][lanes].
template <class S>
void pack_right(const OuterFactor<S>& f, int64_t n, int64_t depth, int64_t first, int vectors,
                S* to) {
  constexpr int L = kLanes<S>, D = Lane<S>::kPerLane;
  for (int64_t i = 0; i < depth; i += D)
    for (int c = 0; c < vectors; ++c, to += L * D) {
      int64_t j = first + c * L;
      int count = int(larger(0, smaller(L, f.columns - j)));
      Vec<S> v = right_of(f, n + i, j, count);
      if constexpr (D == 2)
        v = Lane<S>::pairs(v, i + 1 < depth ? right_of(f, n + i + 1, j, count) : Vec<S>{});
      Lane<S>::store(to, v);
    }
}

// One panel's share of the sums, added to `to`, whose rows are `step` numbers apart.
template <class S, int C>
void add_panel(const S* const* rows, int64_t count, int64_t depth, const S* right,
               Arithmetic<S>* to, int64_t step, bool first) {
  constexpr int R = kTileRows<C>;
  int64_t r = 0;
  for (; r + R <= count; r += R)
    tile<S, R, C>(rows + r, 0, depth, right, to + r * step, step, first);
  last_tile<S, R - 1, C>(count - r, rows + r, 0, depth, right, to + r * step, step, first);
}

template <class S>
void outer_task(const OuterTask<S>& task, int64_t number) {
  using T = Arithmetic<S>;
  constexpr int L = kLanes<S>, D = Lane<S>::kPerLane;
  const Outer<S>& o = task.o;
  int64_t begin = number * task.share;
  int64_t outputs = smaller(task.share, o.outputs - begin);
  if (outputs <= 0) return;
  Arena arena(task.memory.aligned() + number * task.each);
  OuterSpace<S> s(arena, o, task.share);
  for (int64_t r = 0; r < outputs; ++r) s.rows[r] = s.left + r * s.stride;
  for (int64_t n = 0; n < o.steps; n += kOuterDepth<S>) {
    int64_t depth = smaller(kOuterDepth<S>, o.steps - n);
    for (int64_t i = 0; i < depth; i += L * D)
      for (int64_t r = 0; r < outputs; r += L) {
        const S* from = o.left + (n + i) * o.left_stride + begin + r;
        int width = int(smaller(L, outputs - r));
        auto row = [&](int l) {
          return Lane<S>::across(from + l * D * o.left_stride, o.left_stride, depth - i - l * D,
                                 width);
        };
        pack_square(row, lanes_of<S>(depth - i), width, s.left + r * s.stride + i, s.stride);
      }
    for (int k = 0; k < o.count; ++k) {
      const OuterFactor<S>& f = o.factors[k];
      int vectors = panel_vectors<S>(f.columns);
      for (int64_t first = 0; first < f.columns; first += vectors * L) {
        pack_right(f, n, depth, first, vectors, s.right);
        // A panel that is not whole has its sums elsewhere, from where they are copied.
        bool whole = first + vectors * L <= f.columns;
        T* result = s.sums_of(o, k, task.share, begin) + first;
        T* to = whole ? result : s.last;
        int64_t step = whole ? f.columns : vectors * L;
        if (!whole && n)
          for (int64_t r = 0; r < outputs; ++r)
            copy(result + r * f.columns, f.columns - first, to + r * step);
        switch (vectors) {
          case 1: add_panel<S, 1>(s.rows, outputs, depth, s.right, to, step, n == 0); break;
          case 2: add_panel<S, 2>(s.rows, outputs, depth, s.right, to, step, n == 0); break;
          case 3: add_panel<S, 3>(s.rows, outputs, depth, s.right, to, step, n == 0); break;
          default: add_panel<S, 4>(s.rows, outputs, depth, s.right, to, step, n == 0);
        }
        if (!whole)
          for (int64_t r = 0; r < outputs; ++r)
            copy(to + r * step, f.columns - first, result + r * f.columns);
      }
    }
  }
  for (int k = 0; kNarrow<S> && k < o.count; ++k)
    copy(s.sums_of(o, k, task.share, begin), outputs * o.factors[k].columns,
         o.factors[k].result + begin * o.factors[k].columns);
}

template <class S>
bool outer(const Outer<S>& o, const Team& team) {
  if (!o.steps) {
    for (int k = 0; k < o.count; ++k)
      zero(o.factors[k].result, o.outputs * o.factors[k].columns);
    return true;
  }
  if (!o.outputs) return true;
  int64_t share = round_up((o.outputs + team.threads - 1) / team.threads, kLanes<S>);
  int64_t tasks = (o.outputs + share - 1) / share;
  Arena counted(nullptr);
  OuterSpace<S>(counted, o, share);
  Memory memory(counted.used() * tasks);
  if (!memory.taken()) return false;
  OuterTask<S> task{o, share, memory, counted.used()};
  team.run(
      tasks,
      [](int64_t begin, int64_t end, void* given) {
        for (int64_t k = begin; k < end; ++k) outer_task(*static_cast<OuterTask<S>*>(given), k);
      },
      &task);
  return true;
}

}  // namespace

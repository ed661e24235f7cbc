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

constexpr int kOuterDepth = 256;

template <class T>
struct OuterTask {
  const Outer<T>& o;
  int64_t share;  // outputs of a task
  Memory& memory;
  int64_t each;  // bytes of a task
};

template <class T>
struct OuterSpace {
  int64_t stride;  // from one output to the next
  T* left;         // [share][steps], outputs by steps
  T* right;        // [steps][4 lanes], a panel
  T* last;         // [share][4 lanes], a panel that is not whole
  const T** rows;  // [share]

  OuterSpace(Arena& arena, int64_t share, int64_t steps)
      : stride(padded<T>(smaller(steps, kOuterDepth))),
        left(arena.take<T>(round_up(share, kLanes<T>) * stride)),
        right(arena.take<T>(stride * 4 * kLanes<T>)),
        last(arena.take<T>(share * 4 * kLanes<T>)),
        rows(arena.take<const T*>(share)) {}
};

// `depth` steps of one panel of the right side, [depth][C][lanes].
template <class T>
void pack_right(const OuterFactor<T>& f, int64_t n, int64_t depth, int64_t first, int vectors,
                T* to) {
  constexpr int L = kLanes<T>;
  for (int64_t i = 0; i < depth; ++i)
    for (int c = 0; c < vectors; ++c, to += L) {
      int64_t j = first + c * L;
      int count = int(smaller(L, f.columns - j));
      const T* row = f.rows[n + i];
      Vec<T> v = row ? load(row + j, count) : Vec<T>{};
      if (f.masks) v *= load(f.masks[n + i] + j, count);
      store(to, v);
    }
}

// One panel's share of the sums, added to `to`, whose rows are `step` numbers apart.
template <class T, int C>
void add_panel(const T* const* rows, int64_t count, int64_t depth, const T* right, T* to,
               int64_t step, bool first) {
  constexpr int R = kTileRows<C>;
  int64_t r = 0;
  for (; r + R <= count; r += R)
    tile<T, R, C>(rows + r, 0, depth, right, to + r * step, step, first);
  last_tile<T, R - 1, C>(count - r, rows + r, 0, depth, right, to + r * step, step, first);
}

template <class T>
void outer_task(const OuterTask<T>& task, int64_t number) {
  constexpr int L = kLanes<T>;
  const Outer<T>& o = task.o;
  int64_t begin = number * task.share;
  int64_t outputs = smaller(task.share, o.outputs - begin);
  if (outputs <= 0) return;
  Arena arena(task.memory.aligned() + number * task.each);
  OuterSpace<T> s(arena, task.share, o.steps);
  for (int64_t r = 0; r < outputs; ++r) s.rows[r] = s.left + r * s.stride;
  for (int64_t n = 0; n < o.steps; n += kOuterDepth) {
    int64_t depth = smaller(kOuterDepth, o.steps - n);
    for (int64_t i = 0; i < depth; i += L)
      for (int64_t r = 0; r < outputs; r += L)
        pack_square(o.left + (n + i) * o.left_stride + begin + r, o.left_stride, depth - i,
                    outputs - r, s.left + r * s.stride + i, s.stride);
    for (int k = 0; k < o.count; ++k) {
      const OuterFactor<T>& f = o.factors[k];
      int vectors = panel_vectors<T>(f.columns);
      for (int64_t first = 0; first < f.columns; first += vectors * L) {
        pack_right(f, n, depth, first, vectors, s.right);
        // A panel that is not whole has its sums elsewhere, from where they are copied.
        bool whole = first + vectors * L <= f.columns;
        T* result = f.result + begin * f.columns + first;
        T* to = whole ? result : s.last;
        int64_t step = whole ? f.columns : vectors * L;
        if (!whole && n)
          for (int64_t r = 0; r < outputs; ++r)
            copy(result + r * f.columns, f.columns - first, to + r * step);
        switch (vectors) {
          case 1: add_panel<T, 1>(s.rows, outputs, depth, s.right, to, step, n == 0); break;
          case 2: add_panel<T, 2>(s.rows, outputs, depth, s.right, to, step, n == 0); break;
          case 3: add_panel<T, 3>(s.rows, outputs, depth, s.right, to, step, n == 0); break;
          default: add_panel<T, 4>(s.rows, outputs, depth, s.right, to, step, n == 0);
        }
        if (!whole)
          for (int64_t r = 0; r < outputs; ++r)
            copy(to + r * step, f.columns - first, result + r * f.columns);
      }
    }
  }
}

template <class T>
bool outer(const Outer<T>& o, const Team& team) {
  if (!o.steps) {
    for (int k = 0; k < o.count; ++k)
      zero(o.factors[k].result, o.outputs * o.factors[k].columns);
    return true;
  }
  int64_t share = round_up((o.outputs + team.threads - 1) / team.threads, 48);
  int64_t tasks = (o.outputs + share - 1) / share;
  Arena counted(nullptr);
  OuterSpace<T>(counted, share, o.steps);
  Memory memory(counted.used() * tasks);
  if (!memory.taken()) return false;
  OuterTask<T> task{o, share, memory, counted.used()};
  team.run(
      tasks,
      [](int64_t begin, int64_t end, void* given) {
        for (int64_t k = begin; k < end; ++k) outer_task(*static_cast<OuterTask<T>*>(given), k);
      },
      &task);
  return true;
}

}  // namespace

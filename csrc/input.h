// The input's part of the gates: gates_x = x W_x' + b, one product over all steps.
#pragma once

#include "part.h"

namespace {

// Rows that a thread takes through all panels before the next ones: they stay in its cache.
constexpr int64_t kInputRows = 10 * kRowsAtOnce;

template <class T>
struct InputSpace {
  T* sums;
  T* scratch;
  const T** rows;

  explicit InputSpace(Arena& arena)
      : sums(arena.take<T>(kRowsAtOnce * 4 * kLanes<T>)),
        scratch(arena.take<T>(kDepth * 4 * kLanes<T>)),
        rows(arena.take<const T*>(kRowsAtOnce)) {}
};

// The biases of outputs j to j + count.
template <class T>
Vec<T> biases(const Input<T>& in, int64_t j, int count) {
  Vec<T> bias{};
  if (in.bias) bias = load(in.bias + j, count);
  if (in.bias_too && j < in.outputs_too)
    bias += load(in.bias_too + j, int(smaller(count, in.outputs_too - j)));
  if (in.bias_of_peepholes) {
    int64_t end = in.outputs - in.hole, begin = end - in.hole;
    for (int l = 0; l < count; ++l) {
      int64_t output = j + l;
      if (output < begin || output >= end)
        bias[l] += in.bias_of_peepholes[output < begin ? output : output - in.hole];
    }
  }
  return bias;
}

template <class T>
void input_rows(const Input<T>& in, const Weights<T>& weights, int64_t begin, int64_t end,
                InputSpace<T>& s) {
  constexpr int L = kLanes<T>;
  const Matrix<T>& m = weights.matrix;
  for (int64_t panel = 0; panel < m.panels(); ++panel)
    for (int64_t first = begin; first < end; first += kRowsAtOnce) {
      int64_t count = smaller(kRowsAtOnce, end - first);
      for (int64_t r = 0; r < count; ++r) s.rows[r] = in.x + (first + r) * in.inputs;
      multiply(weights, s.scratch, panel, s.rows, count, s.sums);
      for (int c = 0; c < m.columns; ++c) {
        int64_t j = panel * m.panel_step + c * L;
        if (j >= in.outputs) break;
        int width = int(smaller(L, in.outputs - j));
        Vec<T> bias = biases(in, j, width);
        for (int64_t r = 0; r < count; ++r)
          store(in.gates_x + (first + r) * in.outputs + j,
                load(s.sums + (r * m.columns + c) * L) + bias, width);
      }
    }
}

template <class T>
bool input_product(const Input<T>& in, const Team& team) {
  Weights<T> weights(rows_of(in.weights, in.outputs, in.inputs));
  int64_t blocks = (in.steps + kInputRows - 1) / kInputRows;
  bool pack = in.steps > kPassesUnpacked * kRowsAtOnce;
  weights.dots = in.steps <= kDotRows;
  int64_t tasks = smaller(larger(1, blocks), team.threads);
  Arena counted(nullptr);
  if (pack) counted.take<T>(weights.size());
  int64_t packed = counted.used();
  for (int64_t k = 0; k < tasks; ++k) InputSpace<T>{counted};
  Memory memory(counted.used());
  if (!memory.taken()) return false;
  if (pack) {
    weights.packed = reinterpret_cast<T*>(memory.aligned());
    Weights<T>* all[] = {&weights};
    pack_all(all, 1, team);
  }
  struct Context {
    const Input<T>& in;
    const Weights<T>& weights;
    char* base;
    int64_t packed, each, blocks, tasks;
  } context{in,     weights, memory.aligned(), packed, (counted.used() - packed) / tasks,
            blocks, tasks};
  team.run(
      tasks,
      [](int64_t begin, int64_t end, void* given) {
        auto& c = *static_cast<Context*>(given);
        Arena own(c.base + c.packed + begin * c.each);
        InputSpace<T> space(own);
        for (int64_t b = c.blocks * begin / c.tasks; b < c.blocks * end / c.tasks; ++b)
          input_rows(c.in, c.weights, b * kInputRows, smaller(c.in.steps, (b + 1) * kInputRows),
                     space);
      },
      &context);
  return true;
}

}  // namespace

// The input's part of the gates: gates_x = x W_x' + b, a few steps ahead of the recurrence; and the
// input's derivative.
#pragma once

#include "part.h"

namespace {

// What the product of up to `count` rows takes.
template <class S>
struct InputSpace {
  Arithmetic<S>* sums;
  S* scratch;
  const S** rows;

  InputSpace(Arena& arena, int64_t count)
      : sums(arena.take<Arithmetic<S>>(kRowsAtOnce * 4 * kLanes<S>)),
        scratch(arena.take<S>(kDepth<S> * 4 * kLanes<S>)),
        rows(arena.take<const S*>(count)) {}
};

// The biases of outputs j to j + count.
template <class S>
Vec<S> biases(const Input<S>& in, int64_t j, int count) {
  Vec<S> bias{};
  if (in.bias) bias = load(in.bias + j, count);
  if (in.bias_too && j < in.outputs_too)
    bias += load(in.bias_too + j, int(smaller(count, in.outputs_too - j)));
  if (in.bias_of_peepholes) {
    int64_t end = in.outputs - in.hole, begin = end - in.hole;
    for (int l = 0; l < count; ++l) {
      int64_t output = j + l;
      if (output < begin || output >= end)
        bias[l] += load(in.bias_of_peepholes + (output < begin ? output : output - in.hole), 1)[0];
    }
  }
  return bias;
}

// to [count, outputs] = s.rows [count][K] times a matrix, plus bias(j, width) of outputs j and on.
template <class S, class Bias>
void multiply_rows(const Weights<S>& weights, int64_t count, const Bias& bias, S* to,
                   InputSpace<S>& s) {
  constexpr int L = kLanes<S>;
  const Matrix<S>& m = weights.matrix;
  for (int64_t panel = 0; panel < m.panels(); ++panel)
    for (int64_t first = 0; first < count; first += kRowsAtOnce) {
      int64_t rows = smaller(kRowsAtOnce, count - first);
      multiply(weights, s.scratch, panel, s.rows + first, rows, s.sums);
      for (int c = 0; c < m.columns; ++c) {
        int64_t j = panel * m.panel_step + c * L;
        if (j >= m.units) break;
        int width = int(smaller(L, m.units - j));
        Vec<S> added = bias(j, width);
        for (int64_t r = 0; r < rows; ++r)
          store(to + (first + r) * m.units + j, load(s.sums + (r * m.columns + c) * L) + added,
                width);
      }
    }
}

template <class S>
Weights<S> input_weights(const Input<S>& in) {
  return Weights<S>(rows_of(in.weights, in.outputs, in.inputs));
}

// How many rows a part computes ahead of its steps, where that is more than a step's: enough to
// read W_x seldom, and few enough to stay in a cache.
template <class S>
int64_t rows_ahead(const Input<S>& in) {
  constexpr int64_t kNumbers = int64_t(1) << 18;
  return smaller(10 * kRowsAtOnce, larger(5 * kRowsAtOnce, kNumbers / larger(1, in.outputs)));
}

// What a forward pass's memory follows from: hidden units, and what it computes ahead, if anything.
template <class S>
struct ForwardSizes {
  int64_t hidden;
  const Input<S>* input;
};

template <class S>
struct AheadSpace {
  int64_t most = 0;           // rows
  S* numbers = nullptr;       // [most][outputs]
  int64_t* firsts = nullptr;  // of each step ahead, its first row there
  InputSpace<S> product;

  AheadSpace(Arena& arena, const Input<S>* input, int64_t count)
      : most(input ? larger(count, rows_ahead(*input)) : 0),
        numbers(arena.take<S>(input ? most * input->outputs : 0)),
        firsts(arena.take<int64_t>(most)),
        product(arena, most) {}
};

// The gates' input part of a part's steps: rows of gates_x, or computed a few steps ahead, so that
// nothing of the size of all steps is written and read again.
template <class S>
class StepsInput {
 public:
  StepsInput(const S* gates_x, const Input<S>* input, const Weights<S>& weights, int64_t outputs,
             const Part& part, int64_t stride, AheadSpace<S>& space)
      : gates_x_(gates_x),
        input_(input),
        weights_(weights),
        outputs_(outputs),
        part_(part),
        stride_(stride),
        s_(space) {}

  // Have step t, which `running` sequences have.
  void reach(int64_t t, int64_t running) {
    if (!input_ || t < end_) return;
    begin_ = end_ = t;
    int64_t count = 0;
    while (running && count + running <= s_.most) {
      s_.firsts[end_ - begin_] = count;
      for (int64_t r = 0; r < running; ++r)
        s_.product.rows[count++] = input_->x + row(r, end_) * input_->inputs;
      ++end_;
      while (running && part_.sequences[running - 1].steps <= end_) --running;
    }
    auto bias = [&](int64_t j, int width) { return biases(*input_, j, width); };
    multiply_rows(weights_, count, bias, s_.numbers, s_.product);
  }

  const S* at(int64_t r, int64_t t) const {
    if (input_) return s_.numbers + (s_.firsts[t - begin_] + r) * outputs_;
    return gates_x_ + row(r, t) * outputs_;
  }

 private:
  int64_t row(int64_t r, int64_t t) const { return part_.sequences[r].first + t * stride_; }

  const S* gates_x_;
  const Input<S>* input_;
  const Weights<S>& weights_;
  const int64_t outputs_;
  const Part& part_;
  const int64_t stride_;
  AheadSpace<S>& s_;
  int64_t begin_ = 0, end_ = 0;  // the steps that are there
};

// Rows are dealt out to threads.
template <class S>
bool input_backward(const InputBackward<S>& in, const Team& team) {
  Weights<S> weights(columns_of(in.weights, in.inputs, in.outputs));
  int64_t share = (in.steps + team.threads - 1) / team.threads;
  bool packed = in.outputs && share > kPassesUnpacked * kRowsAtOnce;
  Arena counted(nullptr);
  InputSpace<S>(counted, share);
  int64_t each = counted.used(), own = each * team.threads;
  if (packed) counted.take<S>(weights.size());
  Memory memory(own + counted.used());
  if (!memory.taken()) return false;
  if (packed) {
    Weights<S>* all[] = {&weights};
    weights.packed = reinterpret_cast<S*>(memory.aligned() + own);
    pack_all(all, 1, team);
  }
  auto work = [&](int64_t task) {
    Arena arena(memory.aligned() + task * each);
    InputSpace<S> space(arena, share);
    int64_t first = task * share, count = smaller(share, in.steps - first);
    for (int64_t r = 0; r < count; ++r) space.rows[r] = in.d_gates + (first + r) * in.outputs;
    auto none = [](int64_t, int) { return Vec<S>{}; };
    if (count > 0) multiply_rows(weights, count, none, in.d_x + first * in.inputs, space);
  };
  team.run(
      team.threads,
      [](int64_t begin, int64_t end, void* given) {
        for (int64_t k = begin; k < end; ++k) (*static_cast<decltype(work)*>(given))(k);
      },
      &work);
  return true;
}

}  // namespace

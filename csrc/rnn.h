// The simple recurrent network (Elman 1990): h' = phi(x + W_h h), phi one of tanh and relu.
//
// The reference, with which it must agree, is src/peephole/ops/reference/rnn.py.
#pragma once

#include "functions.h"
#include "input.h"
#include "part.h"
#include "zoneout.h"

namespace {

template <class S>
struct RnnForwardSpace : CommonSpace<S> {
  S* h[2];  // what W_h multiplies, before and after a step
  AheadSpace<S> ahead;

  RnnForwardSpace(Arena& arena, const ForwardSizes<S>& sizes, int64_t count)
      : CommonSpace<S>(arena, sizes.hidden, count), ahead(arena, sizes.input, count) {
    for (S*& each : h) each = arena.take<S>(count * this->stride);
  }
};

template <class S>
class RnnForwardRun : PartRun<S> {
 public:
  RnnForwardRun(const Rnn<S>& model, const RnnForward<S>& out, const Batch& batch,
                const Weights<S>& weights, const Weights<S>& input_weights, int64_t part,
                RnnForwardSpace<S>& space)
      : PartRun<S>(model.hidden, batch, part, space),
        m_(model),
        out_(out),
        w_(weights),
        own_(space),
        x_(out.gates_x, out.input, input_weights, model.hidden, part_, batch.stride, space.ahead) {}

  void run() {
    this->read_masked(m_.h0, m_.recurrent_mask, own_.h[0]);
    this->end_at(-1, part_.count, [&](int64_t r) {
      copy_or_zero(this->of_sequence(m_.h0, r), out_.h_n + this->index(r) * H, H);
    });
    int64_t running = part_.count;
    for (int64_t t = 0; t < this->longest(); ++t) {
      running = this->running(t, running);
      x_.reach(t, running);
      step(t, running);
    }
  }

 private:
  using typename PartRun<S>::T;
  using PartRun<S>::H;
  using PartRun<S>::L;
  using PartRun<S>::part_;
  using PartRun<S>::s_;

  void step(int64_t t, int64_t running) {
    const Matrix<S>& matrix = w_.matrix;
    for (int64_t panel = 0; panel < matrix.panels(); ++panel)
      for (int64_t first = 0; first < running; first += kRowsAtOnce) {
        int64_t count = smaller(kRowsAtOnce, running - first);
        this->multiply_state(w_, own_.h[t & 1], panel, first, count, s_.sums);
        for (int column = 0; column < matrix.columns; ++column) {
          int64_t j = panel * matrix.panel_step + column * L;
          if (j >= H) break;
          this->for_vector(j, [&](auto units) INLINED {
            for (int64_t r = 0; r < count; ++r)
              cell(t, first + r, j, units, load(s_.sums + (r * matrix.columns + column) * L));
          });
        }
      }
    this->end_at(t, running, [&](int64_t r) {
      copy(out_.y + this->row(r, t) * H, H, out_.h_n + this->index(r) * H);
    });
  }

  template <class Count>
  ALWAYS_INLINE void cell(int64_t t, int64_t r, int64_t j, Count count, Vec<T> sum) {
    int64_t row = this->row(r, t);
    Vec<T> a = load(x_.at(r, t) + j, count) + sum;
    // Of NaN the comparison is false, and it stays.
    Vec<T> h = m_.relu ? (a <= Vec<T>{} ? Vec<T>{} : a) : vector_tanh(a);
    if (out_.new_h) store(out_.new_h + row * H + j, h, count);
    if (any(m_.zoneout_h)) {
      Vec<T> old_h = this->load_or_zero(this->before(out_.y, m_.h0, r, t), j, count);
      h = zoned_out(m_.zoneout_h, old_h, h, shares(m_.zoneout_h, row, H, j, count));
    }
    store(out_.y + row * H + j, h, count);
    if (m_.recurrent_mask) h *= load(m_.recurrent_mask + this->index(r) * H + j, count);
    store(own_.h[~t & 1] + r * s_.stride + j, h);
  }

  const Rnn<S>& m_;
  const RnnForward<S>& out_;
  const Weights<S>& w_;
  RnnForwardSpace<S>& own_;
  StepsInput<S> x_;
};

template <class S>
bool rnn_forward(const Rnn<S>& model, const RnnForward<S>& out, const Batch& batch,
                 const Team& team) {
  Weights<S> weights(rows_of(model.weight_hh, model.hidden, model.hidden));
  Weights<S> input;
  if (out.input) input = input_weights(*out.input);
  Weights<S>* all[] = {&weights, &input};
  ForwardSizes<S> sizes{model.hidden, out.input};
  auto work = [&](int64_t part, RnnForwardSpace<S>& space) {
    RnnForwardRun<S>(model, out, batch, weights, input, part, space).run();
  };
  return run_parts<S, RnnForwardSpace<S>>(batch, team, sizes, all,
                                          out.input ? 2 : 1, work);
}

template <class S>
struct RnnBackwardSpace : CommonSpace<S> {
  using typename CommonSpace<S>::T;

  T* d_h;
  RowTotals<T> d_bias;

  RnnBackwardSpace(Arena& arena, int64_t hidden, int64_t count)
      : CommonSpace<S>(arena, hidden, count),
        d_h(arena.take<T>(count * this->stride)),
        d_bias(arena, this->stride, 1) {}
};

template <class S>
class RnnBackwardRun : PartRun<S> {
 public:
  RnnBackwardRun(const Rnn<S>& model, const RnnBackward<S>& given, const Batch& batch,
                 const Weights<S>& weights, int64_t part, RnnBackwardSpace<S>& space)
      : PartRun<S>(model.hidden, batch, part, space),
        m_(model),
        g_(given),
        w_(weights),
        own_(space) {}

  void run() {
    this->read_states(g_.d_h_n, own_.d_h);
    own_.d_bias.clear();
    int64_t running = 0;
    for (int64_t t = this->longest() - 1; t >= 0; --t) {
      while (running < part_.count && part_.sequences[running].steps > t) ++running;
      for (int64_t r = 0; r < running; ++r) {
        this->for_each_vector([&](int64_t j, auto count) INLINED { cell(t, r, j, count); });
        own_.d_bias.end_row();
      }
      this->add_product(w_, g_.d_gates, H, 0, t, running, own_.d_h, m_.recurrent_mask);
    }
    this->write_states(own_.d_h, g_.d_h0);
    this->write_totals(own_.d_bias, 1, g_.d_bias);
  }

 private:
  using typename PartRun<S>::T;
  using PartRun<S>::H;
  using PartRun<S>::L;
  using PartRun<S>::part_;
  using PartRun<S>::s_;

  template <class Count>
  ALWAYS_INLINE void cell(int64_t t, int64_t r, int64_t j, Count count) {
    int64_t row = this->row(r, t);
    T* d_h_at = own_.d_h + r * s_.stride + j;
    Vec<T> d_h = load(d_h_at), d_old_h{};
    if (g_.d_y) d_h += load(g_.d_y + row * H + j, count);
    if (any(m_.zoneout_h)) {
      Vec<T> share = shares(m_.zoneout_h, row, H, j, count);
      d_old_h = held_derivative(m_.zoneout_h, share, d_h);
      d_h = fresh_derivative(m_.zoneout_h, share, d_h);
    }
    Vec<T> h = load(g_.new_h + row * H + j, count);
    // As torch: where relu gave nothing, nothing comes back.
    Vec<T> d = m_.relu ? (h <= Vec<T>{} ? Vec<T>{} : d_h) : d_h * (broadcast(T(1)) - h * h);
    store(d_h_at, d_old_h);  // the product is added later
    store(g_.d_gates + row * H + j, d, count);
    own_.d_bias.add(0, j, d);
  }

  const Rnn<S>& m_;
  const RnnBackward<S>& g_;
  const Weights<S>& w_;
  RnnBackwardSpace<S>& own_;
};

template <class S>
bool rnn_backward(const Rnn<S>& model, const RnnBackward<S>& given, const Batch& batch,
                  const Team& team) {
  Weights<S> weights(columns_of(model.weight_hh, model.hidden, model.hidden));
  Weights<S>* all[] = {&weights};
  auto work = [&](int64_t part, RnnBackwardSpace<S>& space) {
    RnnBackwardRun<S>(model, given, batch, weights, part, space).run();
  };
  return run_parts<S, RnnBackwardSpace<S>>(batch, team, model.hidden, all, 1, work);
}

}  // namespace

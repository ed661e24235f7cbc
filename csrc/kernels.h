// What the Python module (module.cpp) asks of the kernels (kernels.cpp).
//
// kernels.cpp is compiled once for each instruction set; each build fills one table of functions.
// All matrices are row-major without gaps. N steps, B sequences, H hidden units. S is what numbers
// are stored as; sums of a call's parts have the type that they are computed in. There are no
// functions here: a function that several builds share could be that of the wrong one.
#pragma once

#include <cstdint>

namespace peephole {

// bfloat16: the upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

// What numbers that are stored as S are computed in.
template <class S>
struct ArithmeticOf {
  using type = S;
};
template <>
struct ArithmeticOf<BFloat16> {
  using type = float;
};
template <class S>
using Arithmetic = typename ArithmeticOf<S>::type;

// Threads: run `work` over parts of 0 to `tasks`, at once as far as there are threads.
struct Team {
  using Work = void (*)(int64_t begin, int64_t end, void* context);
  void (*run)(int64_t tasks, Work work, void* context);
  int64_t threads;
};

// One sequence: its rows are first, first + stride, first + 2 stride, ...
struct Sequence {
  int64_t first;
  int64_t steps;
  int64_t index;  // in the batch
};

// Sequences that one thread takes through all their steps, longest first.
struct Part {
  const Sequence* sequences;
  int64_t count;
};

// A batch, dealt out.
struct Batch {
  const Part* parts;
  int64_t count;
  int64_t stride;  // 1, or -1 where sequences run from their last step to the first
  bool any_order;  // whether a few rows' sums may be added up in another order than many rows'
};

// The share of its old state that a unit keeps: at most one of `mask` (0 or 1) and `shares` is set,
// a row for each step, [N, H]; else `share` holds for all.
template <class S>
struct Zoneout {
  const uint8_t* mask;
  const S* shares;
  Arithmetic<S> share;
};

enum class Peephole { none, diagonal, full };

// What forward and backward share. A null pointer stands for zeros (h0, c0) or for ones.
template <class S>
struct Lstm {
  int64_t hidden;
  bool coupled;  // f = 1 - i: the gates are i, g, o
  Peephole peephole;
  Arithmetic<S> cell_clip;  // infinite for none
  const S* weight_hh;
  const S* weight_ch;
  const S* h0;
  const S* c0;
  const S* recurrent_mask;  // [B, H]
  Zoneout<S> zoneout_h;
  Zoneout<S> zoneout_c;
};

// What gates_x [steps, outputs] = x [steps, inputs] W' + biases is computed from; these may be
// null. The second one may have fewer outputs, the first ones; the third, of peepholes, has none
// for the `hole` outputs before the last `hole`, which are g's.
template <class S>
struct Input {
  const S* x;
  int64_t inputs;
  const S* weights;  // [outputs, inputs]
  int64_t outputs;
  const S* bias;
  const S* bias_too;
  int64_t outputs_too;
  const S* bias_of_peepholes;
  int64_t hole;
};

// The gates' input part is there, or computed on the way: then `input` says from what, else it is
// null.
//
// `gates` may be null, or the memory of `gates_x` itself; `cells` may be null. The backward pass
// needs both. h_n and c_n get the initial state of an empty sequence.
template <class S>
struct LstmForward {
  const S* gates_x;
  const Input<S>* input;
  S* y;
  S* h_n;
  S* c_n;
  S* gates;
  S* cells;
};

// Null upstream gradients are zeros. `d_gates` may be the memory of `gates` itself.
template <class S>
struct LstmBackward {
  const S* gates;
  const S* cells;
  const S* d_y;
  const S* d_h_n;
  const S* d_c_n;
  const S* upstream_gates;  // with respect to gates and cells, where somebody has them
  const S* upstream_cells;
  S* d_gates;
  S* d_h0;
  S* d_c0;
  Arithmetic<S>* d_bias;  // [parts, gates * H], d_gates' sum over each part's rows; may be null
  Arithmetic<S>* d_peepholes;  // [parts, looking gates, H], likewise, for diagonal ones; else null
  S* new_cells;                // [N, H], the cells before zoneout; may be null
};

template <class S>
struct Gru {
  int64_t hidden;
  const S* weight_hh;
  const S* bias_hn;
  const S* h0;
  const S* recurrent_mask;
  Zoneout<S> zoneout_h;
};

// `gates` may be null, or the memory of `gates_x`; `n_h` [N, H] holds W_hn h + b_hn, and may be
// null.
template <class S>
struct GruForward {
  const S* gates_x;
  const Input<S>* input;
  S* y;
  S* h_n;
  S* gates;
  S* n_h;
};

// `d_gates` may be the memory of `gates`, and `d_n_h` that of `n_h`.
template <class S>
struct GruBackward {
  const S* y;
  const S* gates;
  const S* n_h;
  const S* d_y;
  const S* d_h_n;
  const S* upstream_gates;  // with respect to gates, where somebody has them
  S* d_gates;
  S* d_n_h;
  S* d_h0;
  Arithmetic<S>* d_bias;     // [parts, 3 * H], as the LSTM's
  Arithmetic<S>* d_bias_hn;  // [parts, H], likewise
};

template <class S>
struct Rnn {
  int64_t hidden;
  bool relu;  // else tanh
  const S* weight_hh;
  const S* h0;
  const S* recurrent_mask;
  Zoneout<S> zoneout_h;
};

// `new_h` [N, H] is h before zoneout, which the backward pass needs; null without zoneout.
template <class S>
struct RnnForward {
  const S* gates_x;
  const Input<S>* input;
  S* y;
  S* h_n;
  S* new_h;
};

// `d_gates` may be the memory of `new_h`, but not that of `y`.
template <class S>
struct RnnBackward {
  const S* new_h;  // `y`, without zoneout
  const S* d_y;
  const S* d_h_n;
  S* d_gates;
  S* d_h0;
  Arithmetic<S>* d_bias;  // [parts, H], as the LSTM's
};

// One right side of a sum over steps: a row for each step, null for zeros; `masks` multiply them,
// and may be null. The result is [outputs, columns].
template <class S>
struct OuterFactor {
  const S* const* rows;
  const S* const* masks;
  int64_t columns;
  S* result;
};

// result [outputs, columns] = sum over steps n of left[n][outputs] x rows[n][columns].
template <class S>
struct Outer {
  const S* left;
  int64_t left_stride;
  int64_t outputs;
  int64_t steps;
  const OuterFactor<S>* factors;
  int count;
};

// d_x [steps, inputs] = d_gates [steps, outputs] W.
template <class S>
struct InputBackward {
  const S* d_gates;
  int64_t outputs;
  int64_t steps;
  const S* weights;  // [outputs, inputs]
  int64_t inputs;
  S* d_x;
};

// Each gives false where there is no memory for it.
template <class S>
struct KernelsOf {
  bool (*lstm_forward)(const Lstm<S>&, const LstmForward<S>&, const Batch&, const Team&);
  bool (*lstm_backward)(const Lstm<S>&, const LstmBackward<S>&, const Batch&, const Team&);
  bool (*gru_forward)(const Gru<S>&, const GruForward<S>&, const Batch&, const Team&);
  bool (*gru_backward)(const Gru<S>&, const GruBackward<S>&, const Batch&, const Team&);
  bool (*rnn_forward)(const Rnn<S>&, const RnnForward<S>&, const Batch&, const Team&);
  bool (*rnn_backward)(const Rnn<S>&, const RnnBackward<S>&, const Batch&, const Team&);
  bool (*outer)(const Outer<S>&, const Team&);
  bool (*input_backward)(const InputBackward<S>&, const Team&);
  void (*evaluate)(int function, const S* x, S* y, int64_t count);
};

struct Kernels {
  const char* instruction_set;  // as PEEPHOLE_CPU and instruction_set() name it
  KernelsOf<float> float32;
  KernelsOf<double> float64;
  const KernelsOf<BFloat16>* bfloat16;  // null where the processor has no products of such numbers
};

#if defined(__x86_64__)
extern const Kernels kernels_avx512bf16;
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx2;
extern const Kernels kernels_baseline;
#elif defined(__aarch64__)
extern const Kernels kernels_neon;
#else
extern const Kernels kernels_baseline;
#endif

}  // namespace peephole

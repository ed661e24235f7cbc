// The kernels of one instruction set. Compiled once for each, with PEEPHOLE_ISA its name.
#include "kernels.h"

#include "gru.h"
#include "input.h"
#include "lstm.h"
#include "lstm_backward.h"
#include "outer.h"
#include "rnn.h"

#define PASTE_EXPANDED(a, b) a##b
#define PASTE(a, b) PASTE_EXPANDED(a, b)
#define QUOTE_EXPANDED(a) #a
#define QUOTE(a) QUOTE_EXPANDED(a)

namespace {

template <class S>
constexpr KernelsOf<S> kernels_of = {lstm_forward<S>, lstm_backward<S>, gru_forward<S>,
                                     gru_backward<S>, rnn_forward<S>,   rnn_backward<S>,
                                     outer<S>,        input_backward<S>, evaluate<S>};

#if defined(__AVX512BF16__)
constexpr const KernelsOf<BFloat16>* kernels_of_bfloat16 = &kernels_of<BFloat16>;
#else
constexpr const KernelsOf<BFloat16>* kernels_of_bfloat16 = nullptr;
#endif

}  // namespace

namespace peephole {

// The only name that leaves this file.
extern const Kernels PASTE(kernels_, PEEPHOLE_ISA) = {QUOTE(PEEPHOLE_ISA), kernels_of<float>,
                                                      kernels_of<double>, kernels_of_bfloat16};

}  // namespace peephole

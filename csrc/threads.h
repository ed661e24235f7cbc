// PyTorch's own threads: a second pool beside them would spin against them.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace peephole {

// Take over torch_parallel_for and torch_get_num_threads of torch/csrc/stable/c/shim.h, by their
// addresses. Until then, and in a process forked from the one that called this, where those threads
// do not exist, everything runs in the calling thread.
void use_threads_of_torch(uintptr_t parallel_for, uintptr_t get_num_threads);

// Threads for so many multiply-adds that can be cut into at most so many tasks.
Team team_for(double multiply_adds, int64_t tasks);

}  // namespace peephole

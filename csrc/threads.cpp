#include "threads.h"

#include <unistd.h>

#include <algorithm>

namespace peephole {

namespace {

using ParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, Team::Work work,
                                void* context);
using GetNumThreads = int32_t (*)(uint32_t* threads);

ParallelFor parallel_for = nullptr;
GetNumThreads get_num_threads = nullptr;
pid_t owner = 0;

// What a thread must have to do to be worth waking, in multiply-adds: about 20 us.
constexpr double kWorkOfThread = 1e6;

void run_here(int64_t tasks, Team::Work work, void* context) {
  if (tasks > 0) work(0, tasks, context);
}

void run_on_torch(int64_t tasks, Team::Work work, void* context) {
  // It can fail only before it begins, since nothing throws inside.
  if (tasks <= 1 || parallel_for(0, tasks, 1, work, context) != 0) run_here(tasks, work, context);
}

}  // namespace

void use_threads_of_torch(uintptr_t parallel_for_address, uintptr_t get_num_threads_address) {
  parallel_for = reinterpret_cast<ParallelFor>(parallel_for_address);
  get_num_threads = reinterpret_cast<GetNumThreads>(get_num_threads_address);
  owner = getpid();
}

Team team_for(double multiply_adds, int64_t tasks) {
  uint32_t threads = 1;
  if (parallel_for != nullptr && getpid() == owner && get_num_threads(&threads) != 0) threads = 1;
  int64_t worth = int64_t(std::min(multiply_adds / kWorkOfThread, 1e6));
  int64_t useful = std::max<int64_t>(1, std::min({int64_t(threads), tasks, worth}));
  return {useful > 1 ? run_on_torch : run_here, useful};
}

}  // namespace peephole

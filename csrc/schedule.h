// How a batch is dealt out to threads.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace peephole {

// A batch's sequences, longest first, in parts with the same number of steps as nearly as may be.
class Schedule {
 public:
  // Throws std::invalid_argument unless the offsets [sequences + 1] begin with 0, never fall and
  // end with `steps`.
  //
  // `parts` is at least 1; there are no more than sequences with steps.
  Schedule(const int64_t* offsets, int64_t sequences, int64_t steps, bool reverse, int64_t parts);

  Batch batch(bool any_order) const {
    return {parts_.data(), int64_t(parts_.size()), stride_, any_order};
  }

 private:
  std::vector<Sequence> sequences_;
  std::vector<Part> parts_;
  int64_t stride_;
};

}  // namespace peephole

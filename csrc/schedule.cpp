#include "schedule.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace peephole {

namespace {

void check(const std::vector<int64_t>& offsets, int64_t steps) {
  int64_t sequences = int64_t(offsets.size()) - 1;
  auto fail = [](const std::string& why) { throw std::invalid_argument("offsets" + why); };
  if (offsets[0] != 0) fail("[0] = " + std::to_string(offsets[0]) + "; it must be 0");
  for (int64_t b = 0; b < sequences; ++b)
    if (offsets[b + 1] < offsets[b])
      fail(" fall: offsets[" + std::to_string(b) + "] = " + std::to_string(offsets[b]) +
           ", offsets[" + std::to_string(b + 1) + "] = " + std::to_string(offsets[b + 1]));
  if (offsets[sequences] != steps)
    fail(" end at " + std::to_string(offsets[sequences]) + ", but there are " +
         std::to_string(steps) + " steps; they must agree");
}

}  // namespace

Schedule::Schedule(const int64_t* given, int64_t sequences, int64_t steps, bool reverse,
                   int64_t parts)
    : stride_(reverse ? -1 : 1) {
  // A copy, since another thread might change what has been checked.
  std::vector<int64_t> offsets(given, given + sequences + 1);
  check(offsets, steps);
  std::vector<Sequence> all(sequences);
  for (int64_t b = 0; b < sequences; ++b)
    all[b] = {reverse ? offsets[b + 1] - 1 : offsets[b], offsets[b + 1] - offsets[b], b};
  auto longer = [](const Sequence& a, const Sequence& b) { return a.steps > b.steps; };
  if (!std::is_sorted(all.begin(), all.end(), longer))
    std::stable_sort(all.begin(), all.end(), longer);

  // Each sequence goes to the part with the fewest steps, the longest first.
  std::vector<std::vector<Sequence>> dealt(parts);
  std::vector<int64_t> load(parts);
  for (const Sequence& sequence : all) {
    auto least = std::min_element(load.begin(), load.end()) - load.begin();
    dealt[least].push_back(sequence);
    // One more, so that empty sequences are shared out too.
    load[least] += sequence.steps + 1;
  }
  sequences_.reserve(sequences);
  for (const auto& part : dealt) {
    const Sequence* first = sequences_.data() + sequences_.size();
    sequences_.insert(sequences_.end(), part.begin(), part.end());
    parts_.push_back({first, int64_t(part.size())});
  }
}

}  // namespace peephole

// Decides which works get rows in the next step. Pure and single-threaded: no clock, no model.
//
// Rules: every generating work gets one row, round robin when there are more than fit. Reading
// works share a row budget: the oldest gets most of it, and up to three others, in turn, at least a
// slice each, so that a short read finishes while a long one is going on. Rows that nobody in the
// first round wants go to the others in order of arrival.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace anabranch {

struct StepLimits {
  int32_t decode_rows = 64;
  int32_t read_rows = 512;           // when nothing is generating
  int32_t read_rows_decoding = 128;  // when something is
  int32_t score_rows = 128;          // reading rows whose logits are all wanted, of either budget
};

struct StepCandidate {
  uint64_t id = 0;       // ascending in order of arrival
  bool decodes = false;  // generates: wants one row
  bool scores = false;   // reads and wants the logits of each row
  int64_t rows = 1;      // what a reading work can use now; at least 1
};

struct StepShare {
  size_t index = 0;  // of the candidate
  int32_t rows = 0;  // at least 1
};

class StepPlanner {
 public:
  explicit StepPlanner(const StepLimits& limits) : limits_(limits) {}

  // Shares in ascending index. Not empty unless there are no candidates.
  std::vector<StepShare> Plan(absl::Span<const StepCandidate> candidates);

 private:
  std::vector<size_t> Rotate(absl::Span<const StepCandidate> candidates,
                             absl::Span<const size_t> indexes, size_t count, uint64_t& cursor);

  const StepLimits limits_;
  uint64_t decode_cursor_ = 0, read_cursor_ = 0;  // id served last in each rotation
};

}  // namespace anabranch

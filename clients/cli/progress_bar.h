// A line on stderr that shows how far a long read is:
//
//   reading  45 %  12,345 / 27,000 tokens  3,100 tokens/s  5 s left
//
// Thread-compatible; nothing is shown in the first moments, so short reads stay quiet.
#pragma once

#include <cstdint>
#include <iosfwd>

#include "absl/time/time.h"

namespace anabranch::cli {

class ProgressBar {
 public:
  // Silent unless `enabled` (stderr is a terminal, and people read the output).
  ProgressBar(std::ostream& err, bool enabled);
  // Erases the line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `total` is what is known so far and may grow.
  void Update(int64_t done, int64_t total);

 private:
  std::ostream& err_;
  bool enabled_;
  bool shown_ = false;
  absl::Time start_;
  absl::Time last_;
};

}  // namespace anabranch::cli

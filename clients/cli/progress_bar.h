// A line on stderr that shows how far something long is:
//
//   reading  45 %  12,345 / 27,000 tokens  3,100 tokens/s  5 s left
//   exporting  45 %  1.2 GiB / 2.7 GiB  310 MiB/s  5 s left
//
// Thread-compatible; nothing is shown in the first moments, so short reads stay quiet.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "absl/time/time.h"

namespace anabranch::cli {

class ProgressBar {
 public:
  // Silent unless `enabled` (stderr is a terminal, and people read the output).
  ProgressBar(std::ostream& err, bool enabled) : ProgressBar(err, enabled, "reading", kTokens) {}
  enum Unit { kTokens, kBytes, kStates };
  ProgressBar(std::ostream& err, bool enabled, std::string verb, Unit unit);
  // Erases the line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `total` is what is known so far and may grow.
  void Update(int64_t done, int64_t total);
  // What is done now, from the beginning.
  void SetVerb(const std::string& verb) { verb_ = verb; }

 private:
  std::string Count(int64_t count) const;

  std::ostream& err_;
  bool enabled_;
  std::string verb_;
  Unit unit_;
  bool shown_ = false;
  absl::Time start_;
  absl::Time last_;
};

}  // namespace anabranch::cli

#include "clients/cli/progress_bar.h"

#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cli/format.h"

namespace anabranch::cli {
namespace {

constexpr absl::Duration kQuiet = absl::Milliseconds(400);
constexpr absl::Duration kEvery = absl::Milliseconds(100);

}  // namespace

ProgressBar::ProgressBar(std::ostream& err, bool enabled, std::string verb, Unit unit)
    : err_(err),
      enabled_(enabled),
      verb_(std::move(verb)),
      unit_(unit),
      start_(absl::Now()),
      last_(start_) {}

std::string ProgressBar::Count(int64_t count) const {
  return unit_ == kBytes ? HumanBytes(count) : HumanCount(count);
}

ProgressBar::~ProgressBar() {
  if (shown_) err_ << "\r\033[K" << std::flush;
}

void ProgressBar::Update(int64_t done, int64_t total) {
  absl::Time now = absl::Now();
  if (!enabled_ || now - start_ < kQuiet || now - last_ < kEvery) return;
  last_ = now;
  shown_ = true;
  total = std::max(done, total);
  double rate = static_cast<double>(done) / absl::ToDoubleSeconds(now - start_);
  const char* unit = unit_ == kBytes ? "" : unit_ == kStates ? " states" : " tokens";
  std::string line =
      absl::StrFormat("%s %3d %%  %s / %s%s  %s%s/s", verb_, total > 0 ? done * 100 / total : 0,
                      Count(done), Count(total), unit, Count(std::llround(rate)), unit);
  if (rate > 0) {
    double left = std::ceil(static_cast<double>(total - done) / rate);
    absl::StrAppend(&line, "  ", HumanCount(std::llround(left)), " s left");
  }
  err_ << '\r' << line << "\033[K" << std::flush;
}

}  // namespace anabranch::cli

// When the server moves states to smaller codecs by itself. Off unless an age is given.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace anabranch {

struct ReencodingOptions {
  // Ages at which a state is kept as near, as compact and as its tokens alone. Zero: never.
  absl::Duration near_after, compact_after, archive_after;
  absl::Duration interval = absl::Minutes(10);  // between rounds over the library
  int64_t max_bytes_per_second = 16 << 20;      // read and written

  bool enabled() const { return std::max(lossy_after(), archive_after) > absl::ZeroDuration(); }
  bool lossy() const { return lossy_after() > absl::ZeroDuration(); }

 private:
  absl::Duration lossy_after() const { return std::max(near_after, compact_after); }
};

}  // namespace anabranch

#include "clients/cli/weighted.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cli/exit_code.h"

namespace anabranch::cli {

absl::StatusOr<Weighted> ParseWeighted(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  Weighted weighted = {parts.first};
  if (parts.first.size() < text.size() &&
      (!absl::SimpleAtod(parts.second, &weighted.weight) || !(weighted.weight > 0))) {
    return UsageError(absl::StrCat(text, ": the weight after '=' must be a number above 0"));
  }
  return weighted;
}

}  // namespace anabranch::cli

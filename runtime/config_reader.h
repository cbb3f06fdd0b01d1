// Typed, bounded reads from a config.json. The first problem sticks: read everything, then check
// status() once. Messages name the key, the value found and what is allowed. A key that is absent
// or null takes the fallback.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace anabranch {

class ConfigReader {
 public:
  // `file` is the name used in messages.
  static absl::StatusOr<ConfigReader> Parse(absl::string_view text, absl::string_view file);

  bool Has(absl::string_view key) const;
  bool IsString(absl::string_view key) const;

  // Without a fallback the key is required. The value must be in [min, max]; a fallback too.
  int64_t Integer(absl::string_view key, std::optional<int64_t> fallback, int64_t min, int64_t max);
  // A finite number in [min, max].
  double Number(absl::string_view key, double fallback, double min, double max);
  // A list of `count` finite numbers in [min, max]; required. `count` of them in any case.
  std::vector<double> Numbers(absl::string_view key, size_t count, double min, double max);
  bool Bool(absl::string_view key, bool fallback);
  std::string String(absl::string_view key, absl::string_view fallback);
  // A list of strings; `found` false if the key is absent or null.
  std::vector<std::string> Strings(absl::string_view key, bool* found);
  // One id or a list of ids in [0, limit).
  std::vector<int32_t> TokenIds(absl::string_view key, int64_t limit);
  // A list of ascending indices in [0, limit); `found` as above.
  std::vector<int64_t> Indices(absl::string_view key, int64_t limit, bool* found);
  // A pair low <= high of non-negative numbers; the second may be infinite.
  std::pair<float, float> Range(absl::string_view key, float low, float high);
  // The object under `key`, or an empty one.
  ConfigReader Object(absl::string_view key);

  // Keeps the first problem.
  void Fail(absl::string_view key, absl::string_view what);
  void Merge(const ConfigReader& part);
  const absl::Status& status() const { return status_; }

 private:
  ConfigReader(std::shared_ptr<const nlohmann::json> json, std::string file);
  const nlohmann::json* Find(absl::string_view key) const;  // null if absent or null

  std::shared_ptr<const nlohmann::json> json_;
  std::string file_;  // and the path of keys to this object
  absl::Status status_;
};

}  // namespace anabranch

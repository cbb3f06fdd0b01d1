#include "service/config.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/model.h"
#include "runtime/state_codec.h"
#include "service/host_port.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status InRange(absl::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is ", value, ", must be ", low, " to ", high));
}

// Ages are those of states that are cold, so seconds make no sense but in tests.
absl::Status CheckReencoding(const ReencodingOptions& options) {
  constexpr absl::Duration kLongest = absl::Hours(24 * 366 * 100);
  struct Flag {
    const char* name;
    absl::Duration value;
  };
  for (const Flag& flag : {Flag{"reencode-near-after", options.near_after},
                           Flag{"reencode-compact-after", options.compact_after},
                           Flag{"archive-after", options.archive_after}}) {
    if (flag.value < absl::ZeroDuration() || flag.value > kLongest) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag.name, " must be an age such as 720h, or 0 for never"));
    }
  }
  if (options.interval <= absl::ZeroDuration() || options.interval > kLongest) {
    return absl::InvalidArgumentError("--reencode-interval must be a time such as 10m");
  }
  return InRange("reencode-rate", options.max_bytes_per_second, 1 << 16, int64_t{1} << 40);
}

constexpr int64_t kMost = int64_t{1} << 60;

absl::Status CheckRetention(const ServerConfig& config) {
  const EvictionBudget& budget = config.retention.budget;
  ANABRANCH_RETURN_IF_ERROR(InRange("quota-states", config.quotas.states, 0, kMost));
  ANABRANCH_RETURN_IF_ERROR(InRange("quota-sessions", config.quotas.sessions, 0, kMost));
  ANABRANCH_RETURN_IF_ERROR(InRange("quota-bytes", config.quotas.bytes, 0, kMost));
  ANABRANCH_RETURN_IF_ERROR(InRange("library-bytes", budget.high_bytes, 0, kMost));
  ANABRANCH_RETURN_IF_ERROR(
      InRange("library-low-bytes", budget.low_bytes, 0, std::max<int64_t>(budget.high_bytes, 0)));
  if (!(budget.alpha >= 0 && budget.alpha <= 100)) {
    return absl::InvalidArgumentError("--evict-alpha must be 0 to 100");
  }
  if (config.retention.sweep_every < absl::Milliseconds(10)) {
    return absl::InvalidArgumentError("--sweep-every must be at least 10ms");
  }
  if (config.retention.collect_every < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--gc-every must not be negative");
  }
  if (config.default_expiry <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--default-expiry must be more than nothing, or never");
  }
  return absl::OkStatus();
}

// The same GPU twice would hold the weights twice and gain nothing. Of the CPU it is allowed: each
// engine has its own steps, so that a long read on one does not slow the other's streams.
absl::Status CheckDevices(const std::vector<std::string>& devices) {
  for (size_t i = 0; i < devices.size(); ++i) {
    if (devices[i].empty()) {
      return absl::InvalidArgumentError(
          "--device must be one device, or several with a comma between them");
    }
    const bool again =
        std::find(devices.begin(), devices.begin() + i, devices[i]) != devices.begin() + i;
    if (again && devices[i] != "cpu") {
      return absl::InvalidArgumentError(absl::StrCat("--device has ", devices[i], " twice"));
    }
  }
  return absl::OkStatus();
}

constexpr int64_t kMostSlots = 65536, kMostKvPages = 1 << 24;

// What is said of one model is held to the rules of the flags that it takes the place of.
absl::Status CheckModels(const ServerConfig& config) {
  if (config.models.empty()) return absl::InvalidArgumentError("--model must name a folder");
  std::set<std::string> names;
  for (const ModelSpec& spec : config.models) {
    if (spec.directory.empty()) return absl::InvalidArgumentError("--model must name a folder");
    const std::string name = NameOf(spec);
    if (!names.insert(name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("--model: two models are called ", name, ": give one a ,name=OTHER"));
    }
    if (name.find_first_of("\"\\\n") != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("--model: the name ", name, " has a quote, \\ or line break in it"));
    }
    ANABRANCH_RETURN_IF_ERROR(ParseDType(spec.dtype.value_or(config.dtype)).status());
    ANABRANCH_RETURN_IF_ERROR(
        ParseStateDType(spec.state_dtype.value_or(config.state_dtype)).status());
    ANABRANCH_RETURN_IF_ERROR(CheckDevices(config.DevicesOf(spec)));
    ANABRANCH_RETURN_IF_ERROR(InRange("slots", spec.slots.value_or(config.slots), 1, kMostSlots));
    ANABRANCH_RETURN_IF_ERROR(
        InRange("kv-pages", spec.kv_pages.value_or(config.kv_pages), 1, kMostKvPages));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<kernels::DType> ParseDType(const std::string& name) {
  if (name == "float32") return kernels::DType::kFloat32;
  if (name == "bfloat16") return kernels::DType::kBFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat("--dtype is '", name, "', must be float32 or bfloat16"));
}

absl::StatusOr<kernels::DType> ParseStateDType(const std::string& name) {
  if (name == "int8") return kernels::DType::kInt8;
  auto dtype = ParseDType(name);
  if (dtype.ok()) return dtype;
  return absl::InvalidArgumentError(
      absl::StrCat("--state-dtype is '", name, "', must be float32, bfloat16 or int8"));
}

std::vector<std::string> ServerConfig::DevicesOf(const ModelSpec& spec) const {
  return absl::StrSplit(spec.device.value_or(device), ',');
}

absl::Status ServerConfig::Validate() const {
  ANABRANCH_RETURN_IF_ERROR(CheckModels(*this));
  if (data.empty()) return absl::InvalidArgumentError("--data must name a folder");
  ANABRANCH_RETURN_IF_ERROR(ParseHostPort(listen).status());
  if (metrics != "off") ANABRANCH_RETURN_IF_ERROR(ParseHostPort(metrics).status());
  ANABRANCH_RETURN_IF_ERROR(ParseDType(dtype).status());
  ANABRANCH_RETURN_IF_ERROR(InRange("threads", threads, 0, 1024));
  ANABRANCH_RETURN_IF_ERROR(InRange("slots", slots, 1, kMostSlots));
  ANABRANCH_RETURN_IF_ERROR(
      InRange("state-write-every", state_write_every, 1, kMostStateWriteEvery));
  ANABRANCH_RETURN_IF_ERROR(InRange("kv-pages", kv_pages, 1, kMostKvPages));
  ANABRANCH_RETURN_IF_ERROR(InRange("checkpoint-every", checkpoint_every, 0, 1 << 24));
  ANABRANCH_RETURN_IF_ERROR(InRange("max-context", limits.max_context_tokens, 1, 1 << 30));
  ANABRANCH_RETURN_IF_ERROR(InRange("max-append-tokens", limits.max_append_tokens, 1, 1 << 30));
  ANABRANCH_RETURN_IF_ERROR(InRange("max-generate-tokens", limits.max_generate_tokens, 1, 1 << 24));
  ANABRANCH_RETURN_IF_ERROR(InRange("scrub-every", absl::ToInt64Hours(scrub_every), 0, 24 * 365));
  ANABRANCH_RETURN_IF_ERROR(InRange("scrub-rate", scrub_bytes_per_second, 0, int64_t{1} << 40));
  const auto codec = ParseStateCodec(state_codec);
  if (!codec.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--state-codec: ", codec.status().message()));
  }
  ANABRANCH_RETURN_IF_ERROR(CheckReencoding(reencoding));
  ANABRANCH_RETURN_IF_ERROR(CheckRetention(*this));
  return InRange("drain-timeout", absl::ToInt64Seconds(drain_timeout), 0, 3600);
}

}  // namespace anabranch

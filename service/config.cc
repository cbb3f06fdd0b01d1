#include "service/config.h"

#include "absl/strings/str_cat.h"
#include "service/host_port.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status InRange(absl::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is ", value, ", must be ", low, " to ", high));
}

}  // namespace

absl::StatusOr<kernels::DType> ParseDType(const std::string& name) {
  if (name == "float32") return kernels::DType::kFloat32;
  if (name == "bfloat16") return kernels::DType::kBFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat("--dtype is '", name, "', must be float32 or bfloat16"));
}

absl::Status ServerConfig::Validate() const {
  if (model.empty()) return absl::InvalidArgumentError("--model must name a folder");
  if (data.empty()) return absl::InvalidArgumentError("--data must name a folder");
  ANABRANCH_RETURN_IF_ERROR(ParseHostPort(listen).status());
  if (metrics != "off") ANABRANCH_RETURN_IF_ERROR(ParseHostPort(metrics).status());
  ANABRANCH_RETURN_IF_ERROR(ParseDType(dtype).status());
  ANABRANCH_RETURN_IF_ERROR(InRange("threads", threads, 0, 1024));
  ANABRANCH_RETURN_IF_ERROR(InRange("slots", slots, 1, 65536));
  ANABRANCH_RETURN_IF_ERROR(InRange("kv-pages", kv_pages, 1, 1 << 24));
  ANABRANCH_RETURN_IF_ERROR(InRange("checkpoint-every", checkpoint_every, 0, 1 << 24));
  ANABRANCH_RETURN_IF_ERROR(InRange("max-context", limits.max_context_tokens, 1, 1 << 30));
  ANABRANCH_RETURN_IF_ERROR(InRange("max-append-tokens", limits.max_append_tokens, 1, 1 << 30));
  ANABRANCH_RETURN_IF_ERROR(InRange("max-generate-tokens", limits.max_generate_tokens, 1, 1 << 24));
  ANABRANCH_RETURN_IF_ERROR(InRange("scrub-every", absl::ToInt64Hours(scrub_every), 0, 24 * 365));
  ANABRANCH_RETURN_IF_ERROR(InRange("scrub-rate", scrub_bytes_per_second, 0, int64_t{1} << 40));
  return InRange("drain-timeout", absl::ToInt64Seconds(drain_timeout), 0, 3600);
}

}  // namespace anabranch

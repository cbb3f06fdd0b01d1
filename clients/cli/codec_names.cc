#include "clients/cli/codec_names.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/format.h"

namespace anabranch::cli {
namespace {

constexpr char kPrefix[] = "STATE_CODEC_";

}  // namespace

std::string CodecName(v1::StateCodec codec) {
  if (codec == v1::STATE_CODEC_UNSPECIFIED || !v1::StateCodec_IsValid(codec)) return "";
  return absl::AsciiStrToLower(v1::StateCodec_Name(codec).substr(sizeof(kPrefix) - 1));
}

v1::StateCodec CodecOf(const std::string& name) {
  v1::StateCodec codec = v1::STATE_CODEC_UNSPECIFIED;
  v1::StateCodec_Parse(absl::StrCat(kPrefix, absl::AsciiStrToUpper(name)), &codec);
  return codec;
}

std::string StoredLine(const v1::State& state) {
  std::string line = absl::StrCat(HumanBytes(state.size_bytes()), ", ", CodecName(state.codec()));
  if (state.codec() == v1::STATE_CODEC_EXACT) return line;
  absl::StrAppend(&line, " (", HumanBytes(state.exact_size_bytes()), " exact");
  if (state.codec_error() > 0) {
    absl::StrAppendFormat(&line, ", relative error %.2g", state.codec_error());
  }
  return line + ")";
}

}  // namespace anabranch::cli

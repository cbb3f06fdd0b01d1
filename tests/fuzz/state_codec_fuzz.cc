// Feeds bytes to the decoders of encoded tensors, and to DecodeState behind checksums made right.
// The first byte chooses the form, the second the size. What is accepted must be finite; where
// encoding what was decoded is promised to give the same bytes, it must.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/state_codec.h"
#include "runtime/state_table.h"
#include "runtime/tensor_codec.h"

namespace {

using anabranch::MatrixCut;

void CheckFinite(const std::vector<float>& values) {
  for (float value : values) {
    if (!std::isfinite(value)) __builtin_trap();
  }
}

void Tensor(int form, int64_t size, const std::string& bytes) {
  const MatrixCut cut{2 + size % 5, 1 + size % 7};
  std::vector<float> values(form == 0 ? size + 1 : (1 + size) * cut.cols);
  const MatrixCut whole{size + 1, cut.cols};
  absl::Status decoded;
  if (form == 0) decoded = anabranch::DecodeGroups(bytes, absl::MakeSpan(values));
  if (form == 1) decoded = anabranch::DecodeMatrices(bytes, cut, absl::MakeSpan(values));
  if (form > 1) {
    const auto by = form == 2 ? anabranch::ScaledBy::kColumns : anabranch::ScaledBy::kRows;
    decoded = anabranch::DecodeScaled(bytes, whole, by, absl::MakeSpan(values));
  }
  if (decoded.ok()) CheckFinite(values);
  if (!decoded.ok() && decoded.code() != absl::StatusCode::kDataLoss) __builtin_trap();
}

anabranch::StateLayout Layout() {
  using anabranch::StateDType;
  using anabranch::StateKind;
  anabranch::StateLayout layout;
  layout.entries.push_back(
      {0, StateKind::kRecurrent, StateDType::kFloat32, {2, 3, 4}, StateDType::kFloat32});
  layout.entries.push_back(
      {0, StateKind::kCumulative, StateDType::kFloat64, {2}, StateDType::kFloat64});
  layout.entries.push_back(
      {1, StateKind::kKeys, StateDType::kFloat32, {256, 1, 2}, StateDType::kFloat32});
  layout.entries.push_back(
      {1, StateKind::kValues, StateDType::kBFloat16, {256, 1, 2}, StateDType::kBFloat16});
  return layout;
}

// Whatever the bytes are, they carry the sums that the header wants.
void State(bool compact, int64_t tokens, std::string bytes) {
  const anabranch::StateLayout layout = Layout();
  anabranch::StateImage image;
  image.header.token_count = tokens;
  image.header.codec = compact ? anabranch::StateCodec::kCompact : anabranch::StateCodec::kNear;
  image.header.segments = anabranch::SegmentTable(layout, 0);
  auto& segments = image.header.segments;
  segments[0].encoding =
      compact ? anabranch::StateEncoding::kMatrices8 : anabranch::StateEncoding::kGroups16;
  segments[0].bytes = 52;
  if (compact && !bytes.empty()) {
    segments[0].bytes = static_cast<uint8_t>(bytes[0]);
    bytes.erase(0, 1);
  }
  segments[1].offset = segments[0].bytes;
  image.payload = bytes.substr(0, segments[0].bytes + 16);
  bytes.erase(0, image.payload.size());
  for (auto& segment : segments) {
    if (segment.offset + segment.bytes > image.payload.size()) return;
    segment.checksum =
        anabranch::SegmentChecksum(image.payload.view().substr(segment.offset, segment.bytes));
  }
  for (int64_t start = 0; start < tokens; start += 256) {
    anabranch::KvBlockRef ref;
    ref.tokens = static_cast<int32_t>(std::min<int64_t>(tokens - start, 256));
    ref.bytes = bytes.size();
    ref.hash = *anabranch::BlockHash(bytes);
    image.header.kv_blocks.push_back(ref);
    image.kv_blocks.push_back(bytes);
  }
  const auto decoded = anabranch::DecodeState(layout, image);
  if (decoded.ok() && !anabranch::CheckState(*decoded, layout, "", "").ok()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (data[0] % 6 < 4) {
    Tensor(data[0] % 6, data[1], bytes);
  } else {
    State(data[0] % 6 == 5, data[1], bytes);
  }
  return 0;
}

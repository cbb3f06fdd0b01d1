#include "runtime/state_codec.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/float_convert.h"
#include "runtime/slot_segments.h"
#include "runtime/state_table.h"
#include "runtime/tensor_codec.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Of fewer tokens the scales of channels are no gain.
constexpr int64_t kFewestScaledTokens = 16;
std::vector<float> FloatsOf(absl::string_view bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

void EncodeSegment(absl::string_view bytes, StateCodec codec, StateSegment& segment,
                   std::string& payload) {
  CodecError error;
  segment.offset = payload.size();
  segment.encoding = EncodingFor(codec, segment);
  bool encoded = false;
  if (segment.encoding == StateEncoding::kGroups16) {
    encoded = EncodeGroups(FloatsOf(bytes), payload, error);
  } else if (segment.encoding == StateEncoding::kMatrices8) {
    encoded = EncodeMatrices(FloatsOf(bytes), CutOf(segment), payload, error);
  }
  if (!encoded) {
    segment.encoding = StateEncoding::kPlain;
    payload.append(bytes.data(), bytes.size());
  }
  segment.bytes = payload.size() - segment.offset;
  segment.checksum =
      SegmentChecksum(absl::string_view(payload).substr(segment.offset, segment.bytes));
  segment.error = encoded ? error.relative() : 0;
}

absl::Status DecodeSegment(const StateSegment& segment, absl::string_view bytes, char* to) {
  if (segment.encoding == StateEncoding::kPlain) {
    std::memcpy(to, bytes.data(), bytes.size());
    return absl::OkStatus();
  }
  std::vector<float> floats(CountOf(segment));
  const absl::Span<float> values = absl::MakeSpan(floats);
  absl::Status decoded;
  if (segment.encoding == StateEncoding::kGroups16) {
    decoded = DecodeGroups(bytes, values);
  } else if (segment.encoding == StateEncoding::kPacked8) {
    decoded = UnpackMatrices(bytes, CutOf(segment), values);
  } else {
    decoded = DecodeMatrices(bytes, CutOf(segment), values);
  }
  if (!decoded.ok()) {
    return absl::Status(decoded.code(),
                        absl::StrCat(SegmentName(segment), ": ", decoded.message()));
  }
  std::memcpy(to, floats.data(), floats.size() * sizeof(float));
  return absl::OkStatus();
}

// How the keys or the values of one layer in a block are kept.
struct BlockPart {
  BlockPart(const StateEntry& entry, int64_t tokens, StateCodec codec)
      : is_bfloat16(entry.dtype == StateDType::kBFloat16), tokens(tokens) {
    per_token = entry.num_elements() / kKvPageTokens;
    heads = entry.shape[1];
    if (codec == StateCodec::kCompact && tokens >= kFewestScaledTokens) {
      encoding = entry.kind == StateKind::kKeys ? Encoding::kKeys : Encoding::kValues;
    } else if (!is_bfloat16) {
      encoding = Encoding::kGroups;
    }
  }
  enum class Encoding { kPlain, kGroups, kKeys, kValues };

  int64_t count() const { return tokens * per_token; }
  size_t plain_bytes() const { return static_cast<size_t>(count()) * (is_bfloat16 ? 2 : 4); }
  MatrixCut matrix() const {
    return encoding == Encoding::kKeys ? MatrixCut{tokens, per_token}
                                       : MatrixCut{tokens * heads, per_token / heads};
  }
  ScaledBy by() const { return encoding == Encoding::kKeys ? ScaledBy::kColumns : ScaledBy::kRows; }
  size_t bytes() const {
    if (encoding == Encoding::kPlain) return plain_bytes();
    if (encoding == Encoding::kGroups) return GroupsBytes(count());
    return ScaledBytes(matrix(), by());
  }

  bool is_bfloat16;
  int64_t tokens, per_token = 0, heads = 1;
  Encoding encoding = Encoding::kPlain;
};

std::vector<float> FloatsOf(const BlockPart& part, absl::string_view bytes) {
  if (!part.is_bfloat16) return FloatsOf(bytes);
  std::vector<float> values(part.count());
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    values[i] = FromBFloat16(bits);
  }
  return values;
}

void AppendValues(const BlockPart& part, const std::vector<float>& values, std::string& out) {
  if (!part.is_bfloat16) {
    out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    return;
  }
  std::vector<uint16_t> halves(values.size());
  ToBFloat16(values.data(), part.count(), halves.data());
  out.append(reinterpret_cast<const char*>(halves.data()), halves.size() * sizeof(uint16_t));
}

std::vector<BlockPart> PartsOf(const StateLayout& layout, int64_t tokens, StateCodec codec) {
  std::vector<BlockPart> parts;
  for (const StateEntry& entry : layout.entries) {
    if (entry.paged()) parts.emplace_back(entry, tokens, codec);
  }
  return parts;
}

// INTERNAL for values that are not finite: attention never makes them, and a block has no room to
// say that it is kept otherwise.
absl::StatusOr<std::string> EncodeBlock(const StateLayout& layout, int64_t tokens, StateCodec codec,
                                        absl::string_view block, CodecError& error) {
  std::string out;
  for (const BlockPart& part : PartsOf(layout, tokens, codec)) {
    const absl::string_view bytes = block.substr(0, part.plain_bytes());
    block.remove_prefix(part.plain_bytes());
    if (part.encoding == BlockPart::Encoding::kPlain) {
      out.append(bytes.data(), bytes.size());
      continue;
    }
    const std::vector<float> values = FloatsOf(part, bytes);
    const bool encoded = part.encoding == BlockPart::Encoding::kGroups
                             ? EncodeGroups(values, out, error)
                             : EncodeScaled(values, part.matrix(), part.by(), out, error);
    if (!encoded) return absl::InternalError("keys or values are not finite");
  }
  if (codec != StateCodec::kCompact) return out;
  std::string compressed;
  if (!Compress(out, compressed)) return absl::InternalError("a block does not compress");
  return compressed;
}

absl::StatusOr<std::string> DecodeBlock(const StateLayout& layout, int64_t tokens, StateCodec codec,
                                        absl::string_view block) {
  std::string out;
  const std::vector<BlockPart> parts = PartsOf(layout, tokens, codec);
  size_t wanted = 0;
  for (const BlockPart& part : parts) wanted += part.bytes();
  std::string plain;
  if (codec == StateCodec::kCompact) {
    ANABRANCH_ASSIGN_OR_RETURN(plain, Decompress(block, wanted));
    block = plain;
  }
  if (block.size() != wanted) return absl::DataLossError("it has the wrong size");
  for (const BlockPart& part : parts) {
    const absl::string_view bytes = block.substr(0, part.bytes());
    block.remove_prefix(part.bytes());
    if (part.encoding == BlockPart::Encoding::kPlain) {
      out.append(bytes.data(), bytes.size());
      continue;
    }
    std::vector<float> values(part.count());
    ANABRANCH_RETURN_IF_ERROR(
        part.encoding == BlockPart::Encoding::kGroups
            ? DecodeGroups(bytes, absl::MakeSpan(values))
            : DecodeScaled(bytes, part.matrix(), part.by(), absl::MakeSpan(values)));
    AppendValues(part, values, out);
  }
  return out;
}

bool IsFormOf(StateEncoding encoding, StateCodec codec, const StateSegment& segment) {
  const StateEncoding form = EncodingFor(codec, segment);
  return encoding == StateEncoding::kPlain || encoding == form ||
         (encoding == StateEncoding::kPacked8 && form == StateEncoding::kMatrices8);
}

absl::Status Damaged(const StateSegment& segment, absl::string_view how) {
  return absl::DataLossError(absl::StrCat(SegmentName(segment), ": ", how));
}

}  // namespace

const char* StateCodecName(StateCodec codec) {
  constexpr const char* kNames[] = {"exact", "near", "compact", "archive"};
  return kNames[static_cast<int>(codec)];
}

absl::StatusOr<StateCodec> ParseStateCodec(absl::string_view name) {
  for (const StateCodec codec : {StateCodec::kExact, StateCodec::kNear, StateCodec::kCompact}) {
    if (name == StateCodecName(codec)) return codec;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is no codec of states: exact, near or compact"));
}

absl::StatusOr<StateImage> EncodeState(const StateLayout& layout, StateImage exact,
                                       StateCodec codec) {
  if (codec == StateCodec::kExact) return exact;
  if (codec == StateCodec::kArchive) {
    return absl::InvalidArgumentError("an archived state has no content");
  }
  std::string payload;
  payload.reserve(exact.payload.size() / 2 + 4096);
  for (StateSegment& segment : exact.header.segments) {
    EncodeSegment(exact.payload.view().substr(segment.offset, segment.bytes), codec, segment,
                  payload);
  }
  exact.payload = std::move(payload);
  ANABRANCH_RETURN_IF_ERROR(EncodeBlocks(layout, codec, exact));
  exact.header.codec = codec;
  exact.header.format_version = kStateFormatVersion;
  return exact;
}

absl::Status CheckStored(const StateLayout& layout, const StateImage& stored) {
  if (stored.header.vocab < 0) return absl::DataLossError("the state's vocabulary is negative");
  const std::vector<StateSegment> table = SegmentTable(layout, stored.header.vocab);
  const std::vector<StateSegment>& segments = stored.header.segments;
  if (segments.size() != table.size()) {
    return absl::DataLossError(
        absl::StrCat("the state has ", segments.size(), " segments; its model has ", table.size()));
  }
  for (size_t i = 0; i < table.size(); ++i) {
    const StateSegment& is = segments[i];
    if (is.layer != table[i].layer || is.kind != table[i].kind || is.dtype != table[i].dtype ||
        is.shape != table[i].shape) {
      return Damaged(table[i], absl::StrCat("the header has ", SegmentName(is), " there"));
    }
    if (!IsFormOf(is.encoding, stored.header.codec, is)) {
      return Damaged(is, "it is in a form that its codec does not use");
    }
    if (is.offset > stored.payload.size() || is.bytes > stored.payload.size() - is.offset) {
      return Damaged(is, "it ends behind the payload");
    }
    if (is.encoding != StateEncoding::kMatrices8 && is.bytes != BytesIn(is.encoding, is)) {
      return Damaged(is, "it has the wrong size");
    }
  }
  const uint64_t end = segments.empty() ? 0 : segments.back().offset + segments.back().bytes;
  if (stored.payload.size() == end) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the state's payload has ", stored.payload.size(),
                                          " bytes; its header says ", end));
}

absl::Status CheckSegment(const StateSegment& segment, absl::string_view payload) {
  const absl::string_view bytes = payload.substr(segment.offset, segment.bytes);
  if (SegmentChecksum(bytes) != segment.checksum) {
    return Damaged(segment, "it does not match its checksum");
  }
  absl::Status scales;
  if (segment.encoding == StateEncoding::kGroups16) scales = CheckGroups(bytes, CountOf(segment));
  if (segment.encoding == StateEncoding::kPacked8) {
    scales = CheckMatrices(bytes, CutOf(segment), CountOf(segment));
  }
  return scales.ok() ? scales : Damaged(segment, scales.message());
}

absl::Status EncodeBlocks(const StateLayout& layout, StateCodec codec, StateImage& image) {
  std::vector<CodecError> errors(image.kv_blocks.size());
  ANABRANCH_RETURN_IF_ERROR(ForEachBlock(image.kv_blocks, [&](size_t i) -> absl::Status {
    KvBlockRef& ref = image.header.kv_blocks[i];
    ANABRANCH_ASSIGN_OR_RETURN(
        image.kv_blocks[i], EncodeBlock(layout, ref.tokens, codec, image.kv_blocks[i], errors[i]));
    ref.bytes = image.kv_blocks[i].size();
    ANABRANCH_ASSIGN_OR_RETURN(ref.hash, BlockHash(image.kv_blocks[i]));
    return absl::OkStatus();
  }));
  CodecError error;
  for (const CodecError& each : errors) error.Add(each);
  image.header.kv_error = error.relative();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> DecodeBlocks(const StateLayout& layout,
                                                      const StateImage& stored) {
  const StateHeader& header = stored.header;
  const auto damaged = [](size_t i, absl::string_view how) {
    return absl::DataLossError(absl::StrCat("block ", i, " of keys and values: ", how));
  };
  if (stored.kv_blocks.size() != header.kv_blocks.size()) {
    return absl::DataLossError(absl::StrCat("the state names ", header.kv_blocks.size(),
                                            " blocks of keys and values and has ",
                                            stored.kv_blocks.size()));
  }
  if (!layout.has_kv() && !header.kv_blocks.empty()) {
    return absl::DataLossError("the state has keys and values, its model has no attention");
  }
  std::vector<std::string> blocks(stored.kv_blocks.size());
  ANABRANCH_RETURN_IF_ERROR(ForEachBlock(stored.kv_blocks, [&](size_t i) -> absl::Status {
    const KvBlockRef& ref = header.kv_blocks[i];
    ANABRANCH_ASSIGN_OR_RETURN(const std::string hash, BlockHash(stored.kv_blocks[i]));
    if (hash != ref.hash) return damaged(i, "it does not match its hash");
    if (ref.tokens < 1 || ref.tokens > kKvPageTokens) return damaged(i, "its tokens are wrong");
    auto block = DecodeBlock(layout, ref.tokens, header.codec, stored.kv_blocks[i]);
    if (!block.ok()) return damaged(i, block.status().message());
    blocks[i] = *std::move(block);
    return absl::OkStatus();
  }));
  return blocks;
}

StateOrigin OriginAfterRestore(const StateHeader& header) {
  StateOrigin origin = header.origin;
  if (header.codec == StateCodec::kExact) return origin;
  origin.lossy_restores += 1;
  origin.restored_codec = header.codec;
  origin.restored_at = header.token_count;
  return origin;
}

uint64_t ExactBytes(const StateLayout& layout, const StateHeader& header) {
  uint64_t bytes = 0;
  for (const StateSegment& segment : header.segments) {
    bytes += BytesIn(StateEncoding::kPlain, segment);
  }
  for (const KvBlockRef& block : header.kv_blocks) bytes += KvBlockBytes(layout, block.tokens);
  return bytes;
}

absl::StatusOr<StateImage> DecodeState(const StateLayout& layout, StateImage stored) {
  StateHeader& header = stored.header;
  if (header.codec == StateCodec::kExact) return stored;
  ANABRANCH_RETURN_IF_ERROR(CheckStored(layout, stored));
  for (const StateSegment& segment : header.segments) {
    ANABRANCH_RETURN_IF_ERROR(CheckSegment(segment, stored.payload));
  }
  const std::vector<StateSegment> table = SegmentTable(layout, header.vocab);
  std::string payload(table.empty() ? 0 : table.back().offset + table.back().bytes, '\0');
  for (size_t i = 0; i < table.size(); ++i) {
    const StateSegment& segment = header.segments[i];
    ANABRANCH_RETURN_IF_ERROR(
        DecodeSegment(segment, stored.payload.view().substr(segment.offset, segment.bytes),
                      payload.data() + table[i].offset));
  }
  stored.payload = std::move(payload);
  ANABRANCH_ASSIGN_OR_RETURN(stored.kv_blocks, DecodeBlocks(layout, stored));
  header.origin = OriginAfterRestore(header);
  header.codec = StateCodec::kExact;
  header.kv_error = 0;
  const absl::Status sealed = SealState(layout, stored);
  if (!sealed.ok()) return absl::DataLossError(sealed.message());
  return stored;
}

float LargestError(const StateHeader& header) {
  float largest = header.kv_error;
  for (const StateSegment& segment : header.segments) largest = std::max(largest, segment.error);
  return largest;
}

}  // namespace anabranch

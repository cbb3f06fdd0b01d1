#include "runtime/state_image.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/state_table.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

bool NarrowsToBFloat16(const StateEntry& entry) {
  return entry.dtype == StateDType::kFloat32 && entry.stored_dtype == StateDType::kBFloat16;
}

// Slots hold either the stored dtype or float32 values that are exact in bfloat16.
absl::Status CheckStorable(const StateLayout& layout) {
  for (const StateEntry& entry : layout.entries) {
    if (entry.dtype == entry.stored_dtype) continue;
    if (entry.paged() || !NarrowsToBFloat16(entry)) {
      return absl::InternalError(
          absl::StrCat("state entry of layer ", entry.layer, " has no lossless stored form"));
    }
  }
  return absl::OkStatus();
}

// False if a value is not exact: the upper half of a float32 is its bfloat16.
bool Narrow(absl::Span<const uint8_t> from, char* to) {
  uint32_t lost = 0;
  for (size_t i = 0; i < from.size() / 4; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from.data() + 4 * i, 4);
    lost |= bits & 0xffff;
    const uint16_t half = bits >> 16;
    std::memcpy(to + 2 * i, &half, 2);
  }
  return lost == 0;
}

void Widen(const char* from, absl::Span<uint8_t> to) {
  for (size_t i = 0; i < to.size() / 4; ++i) {
    uint16_t half;
    std::memcpy(&half, from + 2 * i, 2);
    const uint32_t bits = uint32_t{half} << 16;
    std::memcpy(to.data() + 4 * i, &bits, 4);
  }
}

// Copies between a slot and a payload are made in one go. Entries that are stored narrower pass
// through `wide`.
struct SlotCopy {
  std::vector<CopyPart> parts;  // slot, and then its place in host memory
  std::vector<std::vector<uint8_t>> wide;
};

// `payload` has the bytes of `table`.
SlotCopy PlanSlotCopy(SlotPool& pool, const SlotRef& ref, absl::Span<const StateSegment> table,
                      char* payload) {
  SlotCopy copy;
  const std::vector<StateEntry>& entries = pool.layout().entries;
  size_t segment = 0;
  for (size_t e = 0; e < entries.size(); ++e) {
    if (entries[e].paged()) continue;
    const absl::Span<uint8_t> slot = pool.SlotBytes(ref, e);
    void* host = payload + table[segment++].offset;
    if (NarrowsToBFloat16(entries[e])) {
      copy.wide.emplace_back(slot.size());
      host = copy.wide.back().data();
    }
    copy.parts.push_back({slot.data(), host, slot.size()});
  }
  return copy;
}

uint64_t BlockBytes(const StateLayout& layout, int64_t tokens) {
  return layout.kv_page_bytes() / kKvPageTokens * tokens;
}

// Visits the parts of a block in their stored order: [layer][keys, values][tokens, heads, dim].
// `visit` gets the bytes of the page's first `tokens` tokens and their offset in the block.
template <typename Visit>
void ForBlockParts(SlotPool& pool, const SlotRef& ref, int block, int64_t tokens, Visit visit) {
  uint64_t offset = 0;
  const std::vector<StateEntry>& entries = pool.layout().entries;
  for (size_t e = 0; e < entries.size(); ++e) {
    if (!entries[e].paged()) continue;
    const absl::Span<uint8_t> page = pool.PageBytes(ref, e, block);
    const absl::Span<uint8_t> part = page.first(page.size() / kKvPageTokens * tokens);
    visit(part, offset);
    offset += part.size();
  }
}

absl::Status CaptureBlocks(SlotPool& pool, const SlotRef& ref, StateImage& image) {
  for (int64_t start = 0; start < ref.position; start += kKvPageTokens) {
    KvBlockRef block;
    block.tokens = std::min<int64_t>(ref.position - start, kKvPageTokens);
    block.bytes = BlockBytes(pool.layout(), block.tokens);
    std::string bytes(block.bytes, '\0');
    std::vector<CopyPart> parts;
    ForBlockParts(pool, ref, start / kKvPageTokens, block.tokens,
                  [&](absl::Span<uint8_t> part, uint64_t offset) {
                    parts.push_back({part.data(), bytes.data() + offset, part.size()});
                  });
    ANABRANCH_RETURN_IF_ERROR(pool.device().Copy(CopyDirection::kToHost, parts));
    ANABRANCH_ASSIGN_OR_RETURN(block.hash, BlockHash(bytes));
    image.header.kv_blocks.push_back(std::move(block));
    image.kv_blocks.push_back(std::move(bytes));
  }
  return absl::OkStatus();
}

// Segments lie inside the payload.
void SumSegments(StateImage& image) {
  for (StateSegment& s : image.header.segments) {
    s.checksum = SegmentChecksum(absl::string_view(image.payload).substr(s.offset, s.bytes));
  }
}

absl::Status CapturePayload(SlotPool& pool, const SlotRef& ref, absl::Span<const float> last_logits,
                            StateImage& image) {
  std::vector<StateSegment>& table = image.header.segments;
  if (!table.empty()) image.payload.resize(table.back().offset + table.back().bytes);
  const SlotCopy copy = PlanSlotCopy(pool, ref, table, image.payload.data());
  ANABRANCH_RETURN_IF_ERROR(pool.device().Copy(CopyDirection::kToHost, copy.parts));
  auto segment = table.begin();
  auto wide = copy.wide.begin();
  for (const StateEntry& entry : pool.layout().entries) {
    if (entry.paged()) continue;
    if (NarrowsToBFloat16(entry) && !Narrow(*wide++, image.payload.data() + segment->offset)) {
      return absl::InternalError(
          absl::StrCat(SegmentName(*segment), " holds values that are not exact bfloat16"));
    }
    ++segment;
  }
  if (segment != table.end()) {
    std::memcpy(image.payload.data() + segment->offset, last_logits.data(), segment->bytes);
  }
  SumSegments(image);
  return absl::OkStatus();
}

absl::Status CheckOrigin(const StateHeader& header, const std::string& fingerprint,
                         const std::string& numerics_profile) {
  if (header.format_version > kStateFormatVersion || header.codec != StateCodec::kExact) {
    return absl::FailedPreconditionError(
        "the state's format version is not supported, or its codec "
        "has to be decoded first");
  }
  if (header.fingerprint != fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat("the state was made by model ", header.fingerprint.substr(0, 12),
                     " and cannot continue on model ", fingerprint.substr(0, 12)));
  }
  if (header.numerics_profile != numerics_profile) {
    return absl::FailedPreconditionError(
        absl::StrCat("the state was made with numerics ", header.numerics_profile,
                     " and cannot continue with ", numerics_profile));
  }
  return absl::OkStatus();
}

absl::Status CheckPayload(const StateImage& image, const StateLayout& layout) {
  const std::vector<StateSegment>& table = image.header.segments;
  if (image.header.vocab < 0) return absl::DataLossError("the state's vocabulary is negative");
  const std::vector<StateSegment> expected = SegmentTable(layout, image.header.vocab);
  if (table.size() != expected.size()) {
    return absl::DataLossError(
        absl::StrCat("the state has ", table.size(), " segments; its model has ", expected.size()));
  }
  for (size_t i = 0; i < table.size(); ++i) {
    const StateSegment& is = table[i];
    const StateSegment& want = expected[i];
    if (is.layer != want.layer || is.kind != want.kind || is.dtype != want.dtype ||
        is.shape != want.shape || is.offset != want.offset || is.bytes != want.bytes) {
      return absl::DataLossError(absl::StrCat(SegmentName(is), " with shape [",
                                              absl::StrJoin(is.shape, ","), "] stands where ",
                                              SegmentName(want), " is expected"));
    }
  }
  const uint64_t bytes = expected.empty() ? 0 : expected.back().offset + expected.back().bytes;
  if (image.payload.size() != bytes) {
    return absl::DataLossError(absl::StrCat("the state's payload has ", image.payload.size(),
                                            " bytes; its header says ", bytes));
  }
  for (const StateSegment& segment : table) {
    const auto data = absl::string_view(image.payload).substr(segment.offset, segment.bytes);
    if (SegmentChecksum(data) != segment.checksum) {
      return absl::DataLossError(
          absl::StrCat(SegmentName(segment), " does not match its checksum"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBlocks(const StateImage& image, const StateLayout& layout) {
  const StateHeader& header = image.header;
  if (header.token_count < 0) return absl::DataLossError("the state's token count is negative");
  const int64_t count = layout.has_kv() ? header.token_count / kKvPageTokens +
                                              (header.token_count % kKvPageTokens != 0)
                                        : 0;
  if (static_cast<int64_t>(header.kv_blocks.size()) != count ||
      static_cast<int64_t>(image.kv_blocks.size()) != count) {
    return absl::DataLossError(absl::StrCat("the state needs ", count, " blocks of keys and ",
                                            "values; its header names ", header.kv_blocks.size(),
                                            " and ", image.kv_blocks.size(), " are there"));
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t tokens = std::min<int64_t>(header.token_count - i * kKvPageTokens, kKvPageTokens);
    const uint64_t bytes = BlockBytes(layout, tokens);
    if (header.kv_blocks[i].tokens != tokens || header.kv_blocks[i].bytes != bytes ||
        image.kv_blocks[i].size() != bytes) {
      return absl::DataLossError(
          absl::StrCat("block ", i, " of keys and values has the wrong size"));
    }
    ANABRANCH_ASSIGN_OR_RETURN(const std::string hash, BlockHash(image.kv_blocks[i]));
    if (hash != header.kv_blocks[i].hash) {
      return absl::DataLossError(
          absl::StrCat("block ", i, " of keys and values does not match its hash"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> LoadLastLogits(const StateImage& image) {
  std::vector<float> logits(image.header.vocab);
  if (logits.empty()) return logits;
  const StateSegment& segment = image.header.segments.back();
  std::memcpy(logits.data(), image.payload.data() + segment.offset, segment.bytes);
  for (float value : logits) {
    if (!std::isfinite(value)) return absl::DataLossError("last logits are not finite");
  }
  return logits;
}

absl::Status LoadState(SlotPool& pool, const StateImage& image, const SlotRef& ref) {
  // The plan has places to write to for captures; here they are only read.
  SlotCopy copy =
      PlanSlotCopy(pool, ref, image.header.segments, const_cast<char*>(image.payload.data()));
  auto segment = image.header.segments.begin();
  auto wide = copy.wide.begin();
  for (const StateEntry& entry : pool.layout().entries) {
    if (entry.paged()) continue;
    if (NarrowsToBFloat16(entry)) {
      Widen(image.payload.data() + segment->offset, absl::MakeSpan(*wide++));
    }
    ++segment;
  }
  for (CopyPart& part : copy.parts) part = {part.to, const_cast<void*>(part.from), part.bytes};
  for (size_t b = 0; b < image.kv_blocks.size(); ++b) {
    ForBlockParts(
        pool, ref, b, image.header.kv_blocks[b].tokens,
        [&](absl::Span<uint8_t> part, uint64_t offset) {
          copy.parts.push_back({image.kv_blocks[b].data() + offset, part.data(), part.size()});
        });
  }
  return pool.device().Copy(CopyDirection::kToDevice, copy.parts);
}

}  // namespace

absl::StatusOr<StateImage> CaptureState(SlotPool& pool, const SlotRef& ref,
                                        const std::string& fingerprint,
                                        const std::string& numerics_profile,
                                        absl::Span<const float> last_logits) {
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(pool.layout()));
  StateImage image;
  image.header.fingerprint = fingerprint;
  image.header.numerics_profile = numerics_profile;
  image.header.token_count = ref.position;
  image.header.vocab = last_logits.size();
  image.header.segments = SegmentTable(pool.layout(), image.header.vocab);
  ANABRANCH_RETURN_IF_ERROR(CapturePayload(pool, ref, last_logits, image));
  if (pool.layout().has_kv()) ANABRANCH_RETURN_IF_ERROR(CaptureBlocks(pool, ref, image));
  return image;
}

absl::Status CheckState(const StateImage& image, const StateLayout& layout,
                        const std::string& fingerprint, const std::string& numerics_profile) {
  ANABRANCH_RETURN_IF_ERROR(CheckOrigin(image.header, fingerprint, numerics_profile));
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(layout));
  ANABRANCH_RETURN_IF_ERROR(CheckPayload(image, layout));
  return CheckBlocks(image, layout);
}

// The sizes are checked by hand: CheckState would compute every hash a second time.
absl::Status SealState(const StateLayout& layout, StateImage& image) {
  StateHeader& header = image.header;
  header.segments = SegmentTable(layout, header.vocab);
  const uint64_t bytes =
      header.segments.empty() ? 0 : header.segments.back().offset + header.segments.back().bytes;
  const int64_t blocks =
      layout.has_kv() ? (header.token_count + kKvPageTokens - 1) / kKvPageTokens : 0;
  if (image.payload.size() != bytes || static_cast<int64_t>(image.kv_blocks.size()) != blocks) {
    return absl::InternalError(absl::StrCat("a state of ", bytes, " bytes and ", blocks,
                                            " blocks cannot be made of ", image.payload.size(),
                                            " and ", image.kv_blocks.size()));
  }
  SumSegments(image);
  header.kv_blocks.clear();
  for (int64_t i = 0; i < blocks; ++i) {
    KvBlockRef block;
    block.tokens = std::min<int64_t>(header.token_count - i * kKvPageTokens, kKvPageTokens);
    block.bytes = BlockBytes(layout, block.tokens);
    if (image.kv_blocks[i].size() != block.bytes) {
      return absl::InternalError(absl::StrCat("block ", i, " has ", image.kv_blocks[i].size(),
                                              " bytes, needs ", block.bytes));
    }
    ANABRANCH_ASSIGN_OR_RETURN(block.hash, BlockHash(image.kv_blocks[i]));
    header.kv_blocks.push_back(std::move(block));
  }
  return CheckStorable(layout);
}

absl::StatusOr<RestoredState> RestoreState(SlotPool& pool, const StateImage& image,
                                           const std::string& fingerprint,
                                           const std::string& numerics_profile) {
  ANABRANCH_RETURN_IF_ERROR(CheckState(image, pool.layout(), fingerprint, numerics_profile));
  RestoredState restored;
  ANABRANCH_ASSIGN_OR_RETURN(restored.last_logits, LoadLastLogits(image));
  ANABRANCH_ASSIGN_OR_RETURN(restored.ref, pool.Acquire());
  absl::Status status = pool.PrepareWrite(restored.ref, image.header.token_count);
  if (status.ok()) status = LoadState(pool, image, restored.ref);
  if (!status.ok()) {
    pool.Release(restored.ref);
    return status;
  }
  restored.ref.position = image.header.token_count;
  return restored;
}

}  // namespace anabranch

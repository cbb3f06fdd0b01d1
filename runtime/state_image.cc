#include "runtime/state_image.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/host_threads.h"
#include "runtime/slot_segments.h"
#include "runtime/state_table.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

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

// Table and size.
absl::Status CheckTable(const StateImage& image, const StateLayout& layout) {
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
  if (image.payload.size() == bytes) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the state's payload has ", image.payload.size(),
                                          " bytes; its header says ", bytes));
}

// Of an image whose table is right.
absl::Status CheckSums(const StateImage& image) {
  const std::vector<StateSegment>& table = image.header.segments;
  const absl::string_view payload = image.payload;
  std::vector<uint8_t> damaged(table.size(), 0);
  ForEachOnHost(payload.size(), table.size(), [&](size_t i) {
    damaged[i] =
        SegmentChecksum(payload.substr(table[i].offset, table[i].bytes)) != table[i].checksum;
  });
  const auto first = std::find(damaged.begin(), damaged.end(), 1);
  if (first == damaged.end()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(SegmentName(table[first - damaged.begin()]), " does not match its checksum"));
}

absl::Status CheckBlockSizes(const StateImage& image, const StateLayout& layout) {
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
    const uint64_t bytes = KvBlockBytes(layout, tokens);
    if (header.kv_blocks[i].tokens != tokens || header.kv_blocks[i].bytes != bytes ||
        image.kv_blocks[i].size() != bytes) {
      return absl::DataLossError(
          absl::StrCat("block ", i, " of keys and values has the wrong size"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBlockHashes(const StateImage& image) {
  for (size_t i = 0; i < image.kv_blocks.size(); ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string hash, BlockHash(image.kv_blocks[i]));
    if (hash != image.header.kv_blocks[i].hash) {
      return absl::DataLossError(
          absl::StrCat("block ", i, " of keys and values does not match its hash"));
    }
  }
  return absl::OkStatus();
}

// All that has to be right before the image's parts may be looked at.
absl::Status CheckShape(const StateImage& image, const StateLayout& layout,
                        const std::string& fingerprint, const std::string& numerics_profile) {
  ANABRANCH_RETURN_IF_ERROR(CheckOrigin(image.header, fingerprint, numerics_profile));
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(layout));
  ANABRANCH_RETURN_IF_ERROR(CheckTable(image, layout));
  return CheckBlockSizes(image, layout);
}

absl::Status CheckContent(const StateImage& image) {
  ANABRANCH_RETURN_IF_ERROR(CheckSums(image));
  return CheckBlockHashes(image);
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

// What is stored narrower is widened in memory of its own, which the device gets by itself: the
// payload, this memory or both may be such that it copies from directly.
absl::Status LoadState(SlotPool& pool, const StateImage& image, const SlotRef& ref,
                       HostBuffers* buffers) {
  const SlotSegments segments(pool.layout(), image.header.vocab);
  const char* const payload = image.payload.data();
  const uint64_t wide_bytes = segments.block_bytes() - segments.payload_bytes();
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer widened,
                             buffers == nullptr ? Buffer::Allocate(wide_bytes) : buffers->Take());
  if (widened.size() < wide_bytes) return absl::InternalError("the buffers are too small");
  char* const wide = static_cast<char*>(widened.data());
  std::vector<CopyPart> parts, wide_parts, block_parts;
  for (size_t i = 0; i < segments.num_entries(); ++i) {
    const absl::Span<uint8_t> slot = pool.SlotBytes(ref, segments.entry(i));
    if (segments.narrows(i)) {
      char* const from = wide + (segments.slot_offset(i) - segments.payload_bytes());
      wide_parts.push_back({from, slot.data(), slot.size()});
    } else {
      parts.push_back({payload + segments.slot_offset(i), slot.data(), slot.size()});
    }
  }
  ForEachOnHost(segments.payload_bytes(), segments.num_entries(), [&](size_t i) {
    if (!segments.narrows(i)) return;
    segments.Widen(i, payload, wide + (segments.slot_offset(i) - segments.payload_bytes()));
  });
  for (size_t b = 0; b < image.kv_blocks.size(); ++b) {
    ForBlockParts(
        pool, ref, static_cast<int>(b), image.header.kv_blocks[b].tokens,
        [&](absl::Span<uint8_t> part, uint64_t offset) {
          block_parts.push_back({image.kv_blocks[b].data() + offset, part.data(), part.size()});
        });
  }
  for (const auto* list : {&parts, &wide_parts, &block_parts}) {
    if (list->empty()) continue;
    ANABRANCH_RETURN_IF_ERROR(pool.device().CopyBeside(CopyDirection::kToDevice, *list));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckState(const StateImage& image, const StateLayout& layout,
                        const std::string& fingerprint, const std::string& numerics_profile) {
  ANABRANCH_RETURN_IF_ERROR(CheckShape(image, layout, fingerprint, numerics_profile));
  return CheckContent(image);
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
  SumSegments(image.payload, absl::MakeSpan(header.segments));
  header.kv_blocks.clear();
  for (int64_t i = 0; i < blocks; ++i) {
    KvBlockRef block;
    block.tokens = std::min<int64_t>(header.token_count - i * kKvPageTokens, kKvPageTokens);
    block.bytes = KvBlockBytes(layout, block.tokens);
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
                                           const std::string& numerics_profile,
                                           HostBuffers* buffers) {
  ANABRANCH_RETURN_IF_ERROR(CheckShape(image, pool.layout(), fingerprint, numerics_profile));
  RestoredState restored;
  ANABRANCH_ASSIGN_OR_RETURN(restored.ref, pool.AcquireUnset());
  absl::Status status = pool.PrepareWrite(restored.ref, image.header.token_count);
  if (status.ok()) {
    // Checked while it is copied: nobody goes on from the slot before all checks have passed.
    absl::Status loaded;
    const auto load = [&] { loaded = LoadState(pool, image, restored.ref, buffers); };
    std::thread loading;
    const bool beside = image.payload.size() >= kWorthThreads;
    if (beside) {
      loading = std::thread(load);
    } else {
      load();
    }
    status = CheckContent(image);
    if (beside) loading.join();
    status.Update(loaded);
  }
  if (status.ok()) {
    auto logits = LoadLastLogits(image);
    status = logits.status();
    if (logits.ok()) restored.last_logits = *std::move(logits);
  }
  if (!status.ok()) {
    pool.Release(restored.ref);
    return status;
  }
  restored.ref.position = image.header.token_count;
  return restored;
}

}  // namespace anabranch

#include "runtime/state_image.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/slot_segments.h"
#include "runtime/state_codec.h"
#include "runtime/state_coder.h"
#include "runtime/state_table.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status CheckOrigin(const StateHeader& header, const std::string& fingerprint,
                         const std::string& numerics_profile) {
  if (header.format_version > kStateFormatVersion) {
    return absl::FailedPreconditionError("the state's format version is not supported");
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

absl::Status Undecoded() {
  return absl::FailedPreconditionError("the state's codec has to be decoded first");
}

// Table and size of an exact image.
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
absl::Status CheckSegments(const StateImage& image) {
  const std::vector<StateSegment>& table = image.header.segments;
  std::vector<absl::Status> found(table.size());
  ForEachOnHost(image.payload.size(), table.size(),
                [&](size_t i) { found[i] = CheckSegment(table[i], image.payload); });
  absl::Status first;
  for (const absl::Status& status : found) first.Update(status);
  return first;
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
    const uint64_t bytes = header.codec == StateCodec::kExact ? KvBlockBytes(layout, tokens)
                                                              : header.kv_blocks[i].bytes;
    if (header.kv_blocks[i].tokens != tokens || header.kv_blocks[i].bytes != bytes ||
        image.kv_blocks[i].size() != bytes) {
      return absl::DataLossError(
          absl::StrCat("block ", i, " of keys and values has the wrong size"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBlockHashes(const StateImage& image) {
  return ForEachBlock(image.kv_blocks, [&image](size_t i) -> absl::Status {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string hash, BlockHash(image.kv_blocks[i]));
    if (hash == image.header.kv_blocks[i].hash) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("block ", i, " of keys and values does not match its hash"));
  });
}

// All that has to be right before the image's parts may be looked at.
absl::Status CheckShape(const StateImage& image, const StateLayout& layout,
                        const std::string& fingerprint, const std::string& numerics_profile) {
  ANABRANCH_RETURN_IF_ERROR(CheckOrigin(image.header, fingerprint, numerics_profile));
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(layout));
  const bool exact = image.header.codec == StateCodec::kExact;
  ANABRANCH_RETURN_IF_ERROR(exact ? CheckTable(image, layout) : CheckStored(layout, image));
  return CheckBlockSizes(image, layout);
}

absl::StatusOr<std::vector<float>> LoadLastLogits(const StateImage& image) {
  std::vector<float> logits(image.header.vocab);
  if (logits.empty()) return logits;
  const StateSegment& segment = image.header.segments.back();
  const absl::string_view bytes = image.payload.view().substr(segment.offset, segment.bytes);
  if (segment.encoding == StateEncoding::kGroups16) {
    ANABRANCH_RETURN_IF_ERROR(DecodeGroups(bytes, absl::MakeSpan(logits)));
  } else {
    std::memcpy(logits.data(), bytes.data(), bytes.size());
  }
  for (float value : logits) {
    if (!std::isfinite(value)) return absl::DataLossError("last logits are not finite");
  }
  return logits;
}

// By a device that codes states. What it is given is decoded there.
absl::Status CodeToSlot(StateCoder& coder, SlotPool& pool, const StateImage& image,
                        const SlotRef& ref) {
  const StateHeader& header = image.header;
  const SlotSegments segments = header.codec == StateCodec::kExact
                                    ? SlotSegments(pool.layout(), header.vocab, StateCodec::kExact)
                                    : SlotSegments(pool.layout(), header);
  auto* const payload = const_cast<char*>(image.payload.data());  // only read
  return coder.ToDevice(
      segments.Codings(pool, ref, /*packed=*/false, 0, segments.num_entries(), payload));
}

// What is stored narrower is widened in memory of its own, which the device gets by itself: the
// payload, this memory or both may be such that it copies from directly.
absl::Status CopyToSlot(SlotPool& pool, const StateImage& image, const SlotRef& ref,
                        HostBuffers* buffers) {
  const SlotSegments segments(pool.layout(), image.header.vocab);
  const char* const payload = image.payload.data();
  const uint64_t wide_bytes = segments.block_bytes() - segments.payload_bytes();
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer widened, TakeBlock(buffers, wide_bytes));
  char* const wide = static_cast<char*>(widened.data());
  std::vector<CopyPart> parts, wide_parts;
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
  for (const auto* list : {&parts, &wide_parts}) {
    if (list->empty()) continue;
    ANABRANCH_RETURN_IF_ERROR(pool.device().CopyBeside(CopyDirection::kToDevice, *list));
  }
  return absl::OkStatus();
}

// `blocks`: the exact ones.
absl::Status LoadState(SlotPool& pool, const StateImage& image,
                       const std::vector<std::string>& blocks, const SlotRef& ref,
                       HostBuffers* buffers) {
  StateCoder* const coder = pool.device().coder();
  ANABRANCH_RETURN_IF_ERROR(coder != nullptr ? CodeToSlot(*coder, pool, image, ref)
                                             : CopyToSlot(pool, image, ref, buffers));
  std::vector<CopyPart> parts;
  for (size_t b = 0; b < blocks.size(); ++b) {
    ForBlockParts(pool, ref, static_cast<int>(b), image.header.kv_blocks[b].tokens,
                  [&](absl::Span<uint8_t> part, uint64_t offset) {
                    parts.push_back({blocks[b].data() + offset, part.data(), part.size()});
                  });
  }
  return parts.empty() ? absl::OkStatus()
                       : pool.device().CopyBeside(CopyDirection::kToDevice, parts);
}

}  // namespace

absl::Status CheckState(const StateImage& image, const StateLayout& layout,
                        const std::string& fingerprint, const std::string& numerics_profile) {
  if (image.header.codec != StateCodec::kExact) return Undecoded();
  ANABRANCH_RETURN_IF_ERROR(CheckShape(image, layout, fingerprint, numerics_profile));
  ANABRANCH_RETURN_IF_ERROR(CheckSegments(image));
  return CheckBlockHashes(image);
}

bool RestoresForm(Device& device, const StateHeader& header) {
  if (header.codec == StateCodec::kExact) return true;
  if (device.coder() == nullptr) return false;
  return std::none_of(
      header.segments.begin(), header.segments.end(),
      [](const StateSegment& segment) { return segment.encoding == StateEncoding::kMatrices8; });
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
  if (!RestoresForm(pool.device(), image.header)) return Undecoded();
  ANABRANCH_RETURN_IF_ERROR(CheckShape(image, pool.layout(), fingerprint, numerics_profile));
  const bool exact = image.header.codec == StateCodec::kExact;
  std::vector<std::string> decoded;
  if (!exact) {
    ANABRANCH_ASSIGN_OR_RETURN(decoded, DecodeBlocks(pool.layout(), image));
  }
  const std::vector<std::string>& blocks = exact ? image.kv_blocks : decoded;
  RestoredState restored;
  restored.origin = OriginAfterRestore(image.header);
  ANABRANCH_ASSIGN_OR_RETURN(restored.ref, pool.AcquireUnset());
  absl::Status status = pool.PrepareWrite(restored.ref, image.header.token_count);
  if (status.ok()) {
    // Checked while it is copied: nobody goes on from the slot before all checks have passed. The
    // copy keeps this thread: the first calls of a new one to a device take a while.
    const auto check = [&] {
      status = CheckSegments(image);
      if (status.ok() && exact) status = CheckBlockHashes(image);
    };
    std::thread checking;
    const bool beside = image.payload.size() >= kWorthThreads;
    if (beside) checking = std::thread(check);
    const absl::Status loaded = LoadState(pool, image, blocks, restored.ref, buffers);
    beside ? checking.join() : check();
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

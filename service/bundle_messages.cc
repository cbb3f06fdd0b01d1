#include "service/bundle_messages.h"

#include <zlib.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "service/error_info.h"

namespace anabranch {

v1::BundleInfo ToProto(const BundleHeader& header) {
  v1::BundleInfo info;
  info.set_bundle_id(absl::BytesToHexString(header.bundle_id));
  info.set_format_version(kBundleFormatVersion);
  info.set_state_id(header.state_id);
  info.set_model_fingerprint(header.fingerprint);
  info.set_numerics_profile(header.numerics_profile);
  info.set_state_count(static_cast<int64_t>(header.states));
  info.set_whole_state_count(static_cast<int64_t>(header.whole_states));
  info.set_block_count(static_cast<int64_t>(header.blobs));
  info.set_ref_count(static_cast<int64_t>(header.refs));
  info.set_size_bytes(static_cast<int64_t>(header.size_bytes));
  return info;
}

uint32_t Crc32(absl::string_view bytes) {
  return static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

absl::Status CheckChunk(const v1::BundleChunk& chunk, int64_t offset) {
  if (chunk.data().size() > kBundleChunkBytes) {
    return LimitExceeded("chunk.data bytes", static_cast<int64_t>(chunk.data().size()),
                         kBundleChunkBytes);
  }
  if (chunk.offset() != offset) {
    return InvalidField("chunk.offset", absl::StrCat("is ", chunk.offset(), ", must be ", offset,
                                                     ": where the bytes before end"));
  }
  if (!chunk.has_crc32() || chunk.crc32() == Crc32(chunk.data())) return absl::OkStatus();
  return ErrorWithReason(
      absl::StatusCode::kDataLoss, "CHUNK_DAMAGED",
      absl::StrCat("the chunk at byte ", offset,
                   " was damaged on its way: begin the import again, it goes on ", "there"));
}

}  // namespace anabranch

#include "service/state_storing.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/state_codec.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

absl::StatusOr<StoredImage> EncodeFor(const StateStoring& storing, StateCodec codec,
                                      StateImage image) {
  StoredImage stored;
  if (image.header.codec != StateCodec::kExact) {
    stored.exact_bytes = ExactBytes(*storing.layout, image.header);
    stored.image = std::move(image);
    return stored;
  }
  stored.exact_bytes = image.payload.size();
  for (const std::string& block : image.kv_blocks) stored.exact_bytes += block.size();
  ANABRANCH_ASSIGN_OR_RETURN(stored.image, EncodeState(*storing.layout, std::move(image), codec));
  return stored;
}

int64_t StageImage(StoredImage stored_image, const absl::flat_hash_set<std::string>& stored,
                   PutState* put) {
  StateImage& image = stored_image.image;
  StateRecord& state = put->record;
  state.fingerprint = image.header.fingerprint;
  state.numerics_profile = image.header.numerics_profile;
  state.token_count = image.header.token_count;
  state.header = SerializeStateHeader(image.header);
  state.codec = image.header.codec;
  state.exact_bytes = state.codec == StateCodec::kExact ? 0 : stored_image.exact_bytes;
  state.codec_error = LargestError(image.header);
  state.lossy_restores = image.header.origin.lossy_restores;
  state.blob_hashes.clear();
  state.blob_bytes = 0;
  int64_t bytes = image.payload.size();
  for (size_t i = 0; i < image.header.kv_blocks.size(); ++i) {
    const KvBlockRef& block = image.header.kv_blocks[i];
    const bool is_stored = stored.contains(block.hash);
    state.blob_hashes.push_back(block.hash);
    state.blob_bytes += block.bytes;
    if (!is_stored) bytes += block.bytes;
    put->blobs.push_back(is_stored ? std::string() : std::move(image.kv_blocks[i]));
  }
  put->payload = std::move(image.payload).TakeString();
  state.payload_bytes = put->payload.size();
  return bytes;
}

std::string LossyBaseParameter(const StateOrigin& origin, int64_t base_tokens) {
  if (origin.lossy_restores == 0) return "";
  if (base_tokens >= 0 && base_tokens != origin.restored_at) return "";
  return absl::StrCat("base=", StateCodecName(origin.restored_codec));
}

}  // namespace anabranch

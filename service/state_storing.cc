#include "service/state_storing.h"

#include <utility>

namespace anabranch {

int64_t StageImage(StateImage image, const absl::flat_hash_set<std::string>& stored,
                   PutState* put) {
  StateRecord& state = put->record;
  state.fingerprint = image.header.fingerprint;
  state.numerics_profile = image.header.numerics_profile;
  state.token_count = image.header.token_count;
  state.header = SerializeStateHeader(image.header);
  int64_t bytes = image.payload.size();
  for (size_t i = 0; i < image.header.kv_blocks.size(); ++i) {
    const KvBlockRef& block = image.header.kv_blocks[i];
    const bool is_stored = stored.contains(block.hash);
    state.blob_hashes.push_back(block.hash);
    state.blob_bytes += block.bytes;
    if (!is_stored) bytes += block.bytes;
    put->blobs.push_back(is_stored ? std::string() : std::move(image.kv_blocks[i]));
  }
  put->payload = std::move(image.payload);
  state.payload_bytes = put->payload.size();
  return bytes;
}

}  // namespace anabranch

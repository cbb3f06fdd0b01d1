// Bundles as the API has them.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "anabranch/v1/bundles.pb.h"
#include "statestore/bundle_format.h"

namespace anabranch {

v1::BundleInfo ToProto(const BundleHeader& header);

// CRC-32 as zlib has it.
uint32_t Crc32(absl::string_view bytes);

// DATA_LOSS (CHUNK_DAMAGED) unless the chunk's checksum, if it has one, is that of its data;
// INVALID_ARGUMENT if it does not begin at `offset` or is too large.
absl::Status CheckChunk(const v1::BundleChunk& chunk, int64_t offset);

}  // namespace anabranch

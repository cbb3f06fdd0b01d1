// RocksDB's CRC32C by the processor's own instruction. Debian builds RocksDB for processors without
// SSE 4.2, where the checksum of its log is computed from tables, which takes most of the CPU time
// of a large commit. The library exports the function, so the program's own definition takes its
// place: the same values, several times as fast. Where the instruction is missing, or where RocksDB
// is linked in another way, the library's own is used.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace anabranch {

// Call before RocksDB is used, so that the definition becomes part of the program. True if
// RocksDB's checksums are computed by the instruction.
bool UseProcessorCrc32c();

// That function: of `bytes`, as RocksDB's files have it but not masked.
uint32_t RocksCrc32c(absl::string_view bytes);

}  // namespace anabranch

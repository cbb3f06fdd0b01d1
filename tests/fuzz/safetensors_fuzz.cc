// Feeds bytes to ParseSafetensors and ParseShardIndex: as they are, and as a header with its length
// put in front, so that the checks behind the length are reached too. Tensors must lie in the file.
#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/safetensors.h"

namespace {

void Check(absl::Span<const uint8_t> file) {
  const auto tensors = anabranch::ParseSafetensors(file);
  if (!tensors.ok()) return;
  for (const auto& [name, tensor] : *tensors) {
    if (tensor.bytes.empty()) continue;
    if (tensor.bytes.begin() < file.begin() || tensor.bytes.end() > file.end()) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Check({data, size});
  // The part up to the last NUL (if any) is the header, the rest is data.
  size_t header = size;
  for (size_t i = 0; i < size; ++i) {
    if (data[i] == 0) header = i;
  }
  std::vector<uint8_t> framed(8 + size);
  const uint64_t length = header;
  std::memcpy(framed.data(), &length, sizeof(length));
  if (size > 0) std::memcpy(framed.data() + 8, data, size);
  Check(framed);
  anabranch::ParseShardIndex({reinterpret_cast<const char*>(data), size}).IgnoreError();
  return 0;
}

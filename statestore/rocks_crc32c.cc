#include "statestore/rocks_crc32c.h"

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rocksdb::crc32c {
// The CRC of what gave `crc` followed by `bytes`; 0 for nothing.
__attribute__((visibility("default"))) uint32_t Extend(uint32_t crc, const char* bytes,
                                                       size_t count);
}  // namespace rocksdb::crc32c

namespace anabranch {
namespace {

constexpr char kName[] = "_ZN7rocksdb6crc32c6ExtendEjPKcm";
using Extend = uint32_t (*)(uint32_t, const char*, size_t);

#ifdef __x86_64__
bool HasInstruction() { return __builtin_cpu_supports("sse4.2") != 0; }

__attribute__((target("sse4.2"))) uint32_t ByInstruction(uint32_t crc, const char* bytes,
                                                         size_t count) {
  uint64_t sum = crc ^ 0xffffffffu;
  for (; count >= 8; bytes += 8, count -= 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    sum = __builtin_ia32_crc32di(sum, word);
  }
  auto rest = static_cast<uint32_t>(sum);
  for (; count > 0; ++bytes, --count) {
    rest = __builtin_ia32_crc32qi(rest, static_cast<unsigned char>(*bytes));
  }
  return rest ^ 0xffffffffu;
}
#else
bool HasInstruction() { return false; }
uint32_t ByInstruction(uint32_t crc, const char*, size_t) { return crc; }
#endif

Extend Chosen() {
  if (HasInstruction()) return ByInstruction;
  return reinterpret_cast<Extend>(dlsym(RTLD_NEXT, kName));
}

}  // namespace

bool UseProcessorCrc32c() {
  return HasInstruction() &&
         dlsym(RTLD_DEFAULT, kName) == reinterpret_cast<void*>(&rocksdb::crc32c::Extend);
}

uint32_t RocksCrc32c(absl::string_view bytes) {
  return rocksdb::crc32c::Extend(0, bytes.data(), bytes.size());
}

}  // namespace anabranch

uint32_t rocksdb::crc32c::Extend(uint32_t crc, const char* bytes, size_t count) {
  static const anabranch::Extend chosen = anabranch::Chosen();
  return chosen(crc, bytes, count);
}

// The program's own CRC32C is what RocksDB calls, and gives what RocksDB's own gives.
#include "statestore/rocks_crc32c.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>

namespace rocksdb::crc32c {
uint32_t Extend(uint32_t crc, const char* bytes, size_t count);
}  // namespace rocksdb::crc32c

namespace anabranch {
namespace {

TEST(RocksCrc32cTest, TakesTheLibrarysPlaceWhereTheProcessorHasTheInstruction) {
#ifdef __x86_64__
  EXPECT_EQ(UseProcessorCrc32c(), __builtin_cpu_supports("sse4.2") != 0);
#endif
}

TEST(RocksCrc32cTest, GivesWhatTheLibraryGives) {
  using Extend = uint32_t (*)(uint32_t, const char*, size_t);
  const auto own = reinterpret_cast<Extend>(dlsym(RTLD_NEXT, "_ZN7rocksdb6crc32c6ExtendEjPKcm"));
  ASSERT_NE(own, nullptr);
  EXPECT_EQ(rocksdb::crc32c::Extend(0, "123456789", 9), 0xe3069283u);
  std::mt19937 random(1);
  std::string bytes(5000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  for (size_t length = 0; length < 300; ++length) {
    const size_t start = random() % 64;
    const auto before = static_cast<uint32_t>(random());
    EXPECT_EQ(rocksdb::crc32c::Extend(before, bytes.data() + start, length),
              own(before, bytes.data() + start, length));
  }
  EXPECT_EQ(rocksdb::crc32c::Extend(7, bytes.data() + 1, 4999), own(7, bytes.data() + 1, 4999));
}

}  // namespace
}  // namespace anabranch

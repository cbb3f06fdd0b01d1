// What the system backs large blocks with is its own business; that they may be asked for anywhere
// is not: the advice covers whole pages inside a block and leaves its bytes as they are.
#include "runtime/huge_pages.h"

#include <gtest/gtest.h>

#include <string>

#include "runtime/tensor_memory.h"

namespace anabranch {
namespace {

TEST(HugePagesTest, ABlockKeepsItsBytesWhereverItLies) {
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{4096}, size_t{33} << 20, size_t{70000001}}) {
    std::string block(bytes, 'b');
    for (const size_t from : {size_t{0}, bytes / 3})
      PreferHugePages(block.data() + from, bytes - from);
    EXPECT_EQ(block, std::string(bytes, 'b')) << bytes;
  }
  PreferHugePages(nullptr, size_t{64} << 20);
}

TEST(HugePagesTest, ABufferIsWritableToItsLastByte) {
  absl::StatusOr<Buffer> buffer = Buffer::Allocate((size_t{40} << 20) + 5);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  static_cast<char*>(buffer->data())[buffer->size() - 1] = 'e';
  EXPECT_EQ(static_cast<char*>(buffer->data())[buffer->size() - 1], 'e');
}

}  // namespace
}  // namespace anabranch

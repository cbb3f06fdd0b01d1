#include "runtime/huge_pages.h"

#include <sys/mman.h>

#include <cstdint>

namespace anabranch {
namespace {

constexpr uintptr_t kHugePage = 2u << 20;
// Up to this glibc learns to keep blocks and hands them out again, touched already; larger ones are
// mapped anew each time.
constexpr size_t kFewest = 32u << 20;

}  // namespace

// Only whole pages inside the block: what lies around it is somebody else's.
void PreferHugePages(void* data, size_t bytes) {
  if (data == nullptr || bytes < kFewest) return;
  const uintptr_t at = reinterpret_cast<uintptr_t>(data);
  const size_t before = (kHugePage - at % kHugePage) % kHugePage;
  const size_t inside = (bytes - before) / kHugePage * kHugePage;
  if (inside > 0) madvise(static_cast<char*>(data) + before, inside, MADV_HUGEPAGE);
}

}  // namespace anabranch

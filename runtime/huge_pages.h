// Huge pages for large blocks that come and go whole: payloads, images, buffers of states. Touching
// fresh memory costs a fault a page, 4 KiB each: most of the time that a payload of 45 MB took
// which RocksDB reads into a new block and hands out in another.
//
// Linking huge_page_new.cc makes every `new` of such a size ask for them, that of libraries too.
#pragma once

#include <cstddef>

namespace anabranch {

// A block of 32 MiB or more that was not touched yet is filled in 2 MiB pages, where the
// system has them ("madvise" or "always" in /sys/kernel/mm/transparent_hugepage/enabled). Nothing
// happens to smaller ones, and none of it shows but in time. Any thread.
void PreferHugePages(void* data, size_t bytes);

}  // namespace anabranch

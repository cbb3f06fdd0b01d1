// The program's `operator new`, of which the library's other forms are made: as the library's, and
// large blocks are filled in huge pages. `operator delete` stays the library's, which frees.
//
// Not for sanitizers, which bring their own.
#include <cstdlib>
#include <new>

#include "runtime/huge_pages.h"

void* operator new(std::size_t bytes) {
  while (true) {
    if (void* data = std::malloc(bytes == 0 ? 1 : bytes)) {
      anabranch::PreferHugePages(data, bytes);
      return data;
    }
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}

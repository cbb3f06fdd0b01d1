// The bytes of a state's payload: a string, or a block of memory that is given back when the last
// holder lets go of it (runtime/host_buffers.h). So a payload of hundreds of megabytes that was
// captured into reused memory is neither zeroed nor copied on its way.
//
// As a string otherwise: copying copies the bytes, and what changes their number makes a string of
// a block first.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class StateBytes {
 public:
  StateBytes() = default;
  StateBytes(std::string text) : text_(std::move(text)) {}  // NOLINT: a string is one
  // The first `size` bytes of the block, whose only holder this is.
  StateBytes(Buffer block, size_t size) : block_(std::move(block)), size_(size) {}
  StateBytes(const StateBytes& other) : text_(other.view()) {}
  StateBytes(StateBytes&& other) noexcept { *this = std::move(other); }
  StateBytes& operator=(const StateBytes& other) {
    if (this != &other) *this = StateBytes(std::string(other.view()));
    return *this;
  }
  StateBytes& operator=(StateBytes&& other) noexcept;

  const char* data() const { return is_block() ? block_data() : text_.data(); }
  char* data() { return is_block() ? block_data() : text_.data(); }
  size_t size() const { return is_block() ? size_ : text_.size(); }
  bool empty() const { return size() == 0; }
  bool in_block() const { return is_block(); }
  char operator[](size_t i) const { return data()[i]; }
  char& operator[](size_t i) { return data()[i]; }
  absl::string_view view() const { return {data(), size()}; }
  operator absl::string_view() const { return view(); }  // NOLINT: bytes are read as views
  friend bool operator==(const StateBytes& a, const StateBytes& b) { return a.view() == b.view(); }

  // As a string that may be changed.
  std::string& text();
  // The bytes as a string, without a copy if they are one.
  std::string TakeString() &&;

 private:
  bool is_block() const { return block_.data() != nullptr; }
  char* block_data() const { return static_cast<char*>(block_.data()); }

  std::string text_;
  Buffer block_;  // empty: the bytes are text_
  size_t size_ = 0;
};

}  // namespace anabranch

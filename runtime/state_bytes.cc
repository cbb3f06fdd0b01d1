#include "runtime/state_bytes.h"

namespace anabranch {

StateBytes& StateBytes::operator=(StateBytes&& other) noexcept {
  text_ = std::exchange(other.text_, std::string());
  block_ = std::exchange(other.block_, Buffer());
  size_ = std::exchange(other.size_, 0);
  return *this;
}

std::string& StateBytes::text() {
  if (is_block()) *this = StateBytes(std::string(view()));
  return text_;
}

std::string StateBytes::TakeString() && { return std::move(text()); }

}  // namespace anabranch

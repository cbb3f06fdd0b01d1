// SHA-256 of bytes that come in pieces.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace anabranch {

class Sha256 {
 public:
  static constexpr size_t kBytes = 32;

  Sha256();
  ~Sha256();
  void Add(absl::string_view bytes);
  // The digest, raw. Nothing may be added afterwards.
  std::string Finish();

 private:
  struct Context;  // OpenSSL's
  std::unique_ptr<Context> context_;
};

}  // namespace anabranch

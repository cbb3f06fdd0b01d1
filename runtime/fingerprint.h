// What names a model: a hash over everything that shapes its states. States of models with
// different fingerprints are never mixed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace anabranch {

// SHA-256 over named parts. Names and lengths are hashed too, so no two lists of parts collide by
// concatenation.
class FingerprintBuilder {
 public:
  FingerprintBuilder();
  ~FingerprintBuilder();
  // `done(bytes)` is called as the bytes are hashed; may be null.
  void Add(absl::string_view name, absl::Span<const uint8_t> bytes,
           const std::function<void(size_t bytes)>& done = nullptr);
  void Add(absl::string_view name, absl::string_view bytes);
  // Lower-case hex. INTERNAL if the hash library failed.
  absl::StatusOr<std::string> Finish();

 private:
  struct Context;
  void Update(const void* data, size_t size);
  std::unique_ptr<Context> context_;
};

}  // namespace anabranch

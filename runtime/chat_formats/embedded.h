// The files of this folder as text, generated from them when the server is built.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace anabranch {

struct EmbeddedChatFormat {
  absl::string_view name;  // of the file, without ".json"
  absl::string_view json;
};

// Sorted by name.
absl::Span<const EmbeddedChatFormat> EmbeddedChatFormats();

}  // namespace anabranch

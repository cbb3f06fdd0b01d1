// One model that a server is told to serve, and what of the server's flags is different for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace anabranch {

struct ModelSpec {
  std::string directory;
  std::string name;  // what clients call it; empty: the folder's name
  // Instead of the flags of the same names. Unset: as those say.
  std::optional<std::string> device, dtype, state_dtype;
  std::optional<int32_t> slots, kv_pages;
};

// The name that clients give the model.
std::string NameOf(const ModelSpec& spec);

// "DIR[,KEY=VALUE]...", keys name, device, dtype, state-dtype, slots and kv-pages; several devices
// have a + between them. Commas belong to DIR as far as there is such a folder. INVALID_ARGUMENT
// names the key. Only the keys are checked here: what they
// say is checked with the flags.
absl::StatusOr<ModelSpec> ParseModelSpec(absl::string_view text);

}  // namespace anabranch

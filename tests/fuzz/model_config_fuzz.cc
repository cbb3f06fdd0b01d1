// Feeds bytes to ParseModelConfig as config.json, and as generation_config.json beside a good one.
// What parses must be a description with positive, bounded sizes.
#include <cstdint>

#include "runtime/model_config.h"

namespace {

constexpr char kGoodConfig[] =
    R"({"model_type": "mamba", "hidden_size": 8, "vocab_size": 16, "num_hidden_layers": 1})";

void Check(absl::string_view config, absl::string_view generation) {
  const auto model = anabranch::ParseModelConfig(config, generation);
  if (!model.ok()) return;
  if (model->hidden <= 0 || model->vocab <= 0 || model->layers.empty()) __builtin_trap();
  for (int32_t id : model->eos_token_ids) {
    if (id < 0 || id >= model->vocab) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  Check(text, "");
  Check(kGoodConfig, text);
  return 0;
}

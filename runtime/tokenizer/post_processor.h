// "post_processor" of tokenizer.json: the special tokens around a text (BOS, EOS). Supported:
// TemplateProcessing (its form for one text), ByteLevel (changes no ids) and Sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/json_fields.h"

namespace anabranch::tokenizer {

class PostProcessor {
 public:
  // nullptr: adds nothing. Ids must be below `vocab_size`.
  static absl::StatusOr<PostProcessor> Parse(const Json* json, int32_t vocab_size);

  void Apply(std::vector<int32_t>* ids) const;

 private:
  absl::Status Add(const Json& json, int32_t vocab_size);
  absl::Status AddTemplate(const Json& json, int32_t vocab_size);

  std::vector<int32_t> before_, after_;
};

}  // namespace anabranch::tokenizer

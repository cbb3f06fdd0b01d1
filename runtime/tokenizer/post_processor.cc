#include "runtime/tokenizer/post_processor.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

constexpr absl::string_view kName = "post_processor TemplateProcessing";
constexpr size_t kMaxTemplateIds = 1024;

// The ids that special_tokens[name] stands for.
absl::Status AppendSpecialToken(const Json& json, const std::string& name, int32_t vocab_size,
                                std::vector<int32_t>* ids) {
  const Json* table = Find(json, "special_tokens");
  const Json* token = table == nullptr ? nullptr : Find(*table, name.c_str());
  if (token == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": '", name, "' is not in special_tokens"));
  }
  ANABRANCH_ASSIGN_OR_RETURN(const Json* values, ArrayField(*token, "ids", kName));
  for (const Json& value : *values) {
    ANABRANCH_ASSIGN_OR_RETURN(const int32_t id,
                               TokenIdValue(value, absl::StrCat(kName, ": id of '", name, "'")));
    if (id >= vocab_size || ids->size() >= kMaxTemplateIds) {
      return absl::InvalidArgumentError(absl::StrCat(
          kName, ": '", name, "' has an id outside the vocabulary, or there are too many"));
    }
    ids->push_back(id);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::Parse(const Json* json, int32_t vocab_size) {
  PostProcessor result;
  if (json == nullptr) return result;
  ANABRANCH_ASSIGN_OR_RETURN(const std::string type, ComponentType(*json, "post_processor"));
  if (type != "Sequence") {
    ANABRANCH_RETURN_IF_ERROR(result.Add(*json, vocab_size));
    return result;
  }
  ANABRANCH_ASSIGN_OR_RETURN(const Json* parts,
                             ArrayField(*json, "processors", "post_processor Sequence"));
  for (const Json& part : *parts) ANABRANCH_RETURN_IF_ERROR(result.Add(part, vocab_size));
  return result;
}

absl::Status PostProcessor::Add(const Json& json, int32_t vocab_size) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::string type, ComponentType(json, "post_processor"));
  if (type == "ByteLevel") return absl::OkStatus();
  if (type == "TemplateProcessing") return AddTemplate(json, vocab_size);
  return Unsupported("post_processor", type);
}

// A later template is put around what the earlier ones made.
absl::Status PostProcessor::AddTemplate(const Json& json, int32_t vocab_size) {
  ANABRANCH_ASSIGN_OR_RETURN(const Json* single, ArrayField(json, "single", kName));
  std::vector<int32_t> before, after;
  bool seen_text = false;
  for (const Json& item : *single) {
    if (const Json* token = Find(item, "SpecialToken"); token != nullptr) {
      ANABRANCH_ASSIGN_OR_RETURN(const std::string name, StringField(*token, "id", kName));
      ANABRANCH_RETURN_IF_ERROR(
          AppendSpecialToken(json, name, vocab_size, seen_text ? &after : &before));
      continue;
    }
    const Json* text = Find(item, "Sequence");
    if (text == nullptr || seen_text) {
      return absl::InvalidArgumentError(
          absl::StrCat(kName, ": 'single' must be special tokens around one Sequence A"));
    }
    ANABRANCH_ASSIGN_OR_RETURN(const std::string id, StringField(*text, "id", kName));
    if (id != "A") return Unsupported(absl::StrCat(kName, " Sequence"), id);
    seen_text = true;
  }
  if (!seen_text) {
    return absl::InvalidArgumentError(absl::StrCat(kName, ": 'single' has no Sequence A"));
  }
  before_.insert(before_.begin(), before.begin(), before.end());
  after_.insert(after_.end(), after.begin(), after.end());
  return absl::OkStatus();
}

void PostProcessor::Apply(std::vector<int32_t>* ids) const {
  ids->insert(ids->begin(), before_.begin(), before_.end());
  ids->insert(ids->end(), after_.begin(), after_.end());
}

}  // namespace anabranch::tokenizer

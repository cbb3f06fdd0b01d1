#include "runtime/chat_format.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/tokenizer/json_fields.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using tokenizer::Find;
using tokenizer::Json;

constexpr absl::string_view kName = "chat_format.json";

// A misspelt field would silently give a model turns it was not trained on.
absl::Status OnlyFields(const Json& object, absl::string_view where,
                        const std::vector<std::string>& known) {
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": unknown field '", name, "'; known: ", absl::StrJoin(known, ", ")));
    }
  }
  return absl::OkStatus();
}

// Text of the format itself: its special tokens are tokens.
absl::StatusOr<std::vector<int32_t>> FormatTokens(const Json& object, const char* name,
                                                  absl::string_view where,
                                                  const Tokenizer& tokenizer) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::string text,
                             tokenizer::StringField(object, name, where, ""));
  return tokenizer.Encode(text, Tokenizer::EncodeOptions{});
}

absl::StatusOr<int32_t> StopToken(const Json& value, const Tokenizer& tokenizer) {
  const auto* text = value.get_ptr<const std::string*>();
  if (text == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(kName, ": 'stop' must be a list of tokens"));
  }
  const std::optional<int32_t> id = tokenizer.TokenId(*text);
  if (!id.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": stop token '", *text, "' is not in the vocabulary"));
  }
  return *id;
}

}  // namespace

absl::StatusOr<ChatFormat> ChatFormat::FromJson(absl::string_view json,
                                                const Tokenizer& tokenizer) {
  ANABRANCH_ASSIGN_OR_RETURN(const Json parsed, tokenizer::ParseJson(json, kName));
  ANABRANCH_RETURN_IF_ERROR(OnlyFields(parsed, kName, {"bos", "turns", "reply_prefix", "stop"}));
  ChatFormat format;
  format.tokenizer_ = &tokenizer;
  ANABRANCH_ASSIGN_OR_RETURN(format.bos_, FormatTokens(parsed, "bos", kName, tokenizer));
  ANABRANCH_ASSIGN_OR_RETURN(format.reply_prefix_,
                             FormatTokens(parsed, "reply_prefix", kName, tokenizer));
  const Json* turns = Find(parsed, "turns");
  if (turns == nullptr || !turns->is_object() || turns->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": 'turns' must be an object with at least one role"));
  }
  for (const auto& [role, turn] : turns->items()) {
    const std::string where = absl::StrCat(kName, ": role '", role, "'");
    if (!turn.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(where, " must be an object"));
    }
    ANABRANCH_RETURN_IF_ERROR(OnlyFields(turn, where, {"prefix", "suffix"}));
    Turn& tokens = format.turns_[role];
    ANABRANCH_ASSIGN_OR_RETURN(tokens.prefix, FormatTokens(turn, "prefix", where, tokenizer));
    ANABRANCH_ASSIGN_OR_RETURN(tokens.suffix, FormatTokens(turn, "suffix", where, tokenizer));
  }
  ANABRANCH_ASSIGN_OR_RETURN(const Json* stop, tokenizer::ArrayField(parsed, "stop", kName));
  for (const Json& value : *stop) {
    ANABRANCH_ASSIGN_OR_RETURN(const int32_t id, StopToken(value, tokenizer));
    format.stop_ids_.push_back(id);
  }
  if (!format.stop_ids_.empty()) format.reply_suffix_ = {format.stop_ids_.front()};
  for (const auto& [role, turn] : format.turns_) {
    if (turn.prefix == format.reply_prefix_) format.reply_suffix_ = turn.suffix;
  }
  return format;
}

std::vector<int32_t> ChatFormat::CloseOpenReply(absl::Span<const int32_t> context) const {
  if (reply_prefix_.empty()) return {};
  for (; !context.empty(); context.remove_suffix(1)) {
    if (absl::c_linear_search(stop_ids_, context.back())) return {};
    if (context.size() >= reply_prefix_.size() &&
        context.last(reply_prefix_.size()) == absl::MakeConstSpan(reply_prefix_)) {
      return reply_suffix_;
    }
  }
  return {};
}

absl::StatusOr<std::vector<int32_t>> ChatFormat::Encode(absl::Span<const ChatMessage> messages,
                                                        bool at_start, bool reply) const {
  std::vector<int32_t> ids;
  const auto append = [&ids](const std::vector<int32_t>& more) {
    ids.insert(ids.end(), more.begin(), more.end());
  };
  if (at_start) append(bos_);
  Tokenizer::EncodeOptions plain;
  plain.parse_special_tokens = false;
  for (const ChatMessage& message : messages) {
    const auto turn = turns_.find(message.role);
    if (turn == turns_.end()) {
      const auto name = [](std::string* out, const auto& entry) { out->append(entry.first); };
      return absl::InvalidArgumentError(
          absl::StrCat("unknown role '", message.role,
                       "'; this model knows: ", absl::StrJoin(turns_, ", ", name)));
    }
    ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> text,
                               tokenizer_->Encode(message.text, plain));
    append(turn->second.prefix);
    append(text);
    append(turn->second.suffix);
  }
  if (reply) append(reply_prefix_);
  return ids;
}

}  // namespace anabranch

#include "runtime/chat_format.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/tokenizer/unicode_class.h"
#include "runtime/tokenizer/utf8.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using tokenizer::Find;
using tokenizer::Json;

constexpr absl::string_view kName = "chat format";
constexpr char kSystem[] = "system", kUser[] = "user", kAssistant[] = "assistant";

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

absl::StatusOr<std::vector<std::string>> StringList(const Json& object, const char* name) {
  std::vector<std::string> list;
  ANABRANCH_ASSIGN_OR_RETURN(const Json* values, tokenizer::ArrayField(object, name, kName));
  for (const Json& value : *values) {
    const auto* text = value.get_ptr<const std::string*>();
    if (text == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(kName, ": '", name, "' must be a list of tokens"));
    }
    list.push_back(*text);
  }
  return list;
}

absl::StatusOr<std::vector<std::string>> TokenList(const Json& json) {
  if (Find(json, "tokens") == nullptr) return std::vector<std::string>();
  return StringList(json, "tokens");
}

std::string Trimmed(const std::string& text) {
  size_t begin = 0, end = text.size();
  for (size_t before = end; end > 0; end = before) {
    if (!tokenizer::IsWhitespace(tokenizer::PreviousCodePoint(text, &before))) break;
  }
  for (size_t behind = 0; begin < end; begin = behind) {
    if (!tokenizer::IsWhitespace(tokenizer::NextCodePoint(text, &behind))) break;
  }
  return text.substr(begin, end - begin);
}

// The ids at the end of both.
std::vector<int32_t> CommonEnd(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto [end, unused] = std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend());
  return {end.base(), a.end()};
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ChatFormat::ControlTokens(absl::string_view json) {
  ANABRANCH_ASSIGN_OR_RETURN(const Json parsed, tokenizer::ParseJson(json, kName));
  return TokenList(parsed);
}

absl::StatusOr<ChatFormat> ChatFormat::FromJson(absl::string_view json,
                                                const Tokenizer& tokenizer) {
  ANABRANCH_ASSIGN_OR_RETURN(const Json parsed, tokenizer::ParseJson(json, kName));
  ANABRANCH_RETURN_IF_ERROR(OnlyFields(
      parsed, kName, {"bos", "default_system", "reply_prefix", "stop", "tokens", "trim", "turns"}));
  ChatFormat format;
  format.tokenizer_ = &tokenizer;
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<std::string> tokens, TokenList(parsed));
  for (const std::string& token : tokens) {
    const std::optional<int32_t> id = tokenizer.TokenId(token);
    if (!id.has_value() || !tokenizer.IsSpecial(*id)) {
      return absl::InvalidArgumentError(
          absl::StrCat(kName, ": the tokenizer has no special token '", token, "'"));
    }
  }
  ANABRANCH_ASSIGN_OR_RETURN(format.bos_, tokenizer::StringField(parsed, "bos", kName, ""));
  ANABRANCH_ASSIGN_OR_RETURN(format.trim_, tokenizer::BoolField(parsed, "trim", kName, false));
  format.has_default_system_ = Find(parsed, "default_system") != nullptr;
  ANABRANCH_ASSIGN_OR_RETURN(format.default_system_,
                             tokenizer::StringField(parsed, "default_system", kName, ""));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string prefix,
                             tokenizer::StringField(parsed, "reply_prefix", kName, ""));
  ANABRANCH_ASSIGN_OR_RETURN(format.reply_prefix_,
                             tokenizer.Encode(prefix, Tokenizer::EncodeOptions{}));
  ANABRANCH_RETURN_IF_ERROR(format.ReadTurns(parsed));
  ANABRANCH_RETURN_IF_ERROR(format.ReadStop(parsed));
  ANABRANCH_RETURN_IF_ERROR(format.FindReplyEnds());
  return format;
}

absl::Status ChatFormat::ReadTurns(const Json& json) {
  const Json* turns = Find(json, "turns");
  if (turns == nullptr || !turns->is_object() || turns->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": 'turns' must be an object with at least one role"));
  }
  for (const auto& [role, turn] : turns->items()) {
    const std::string where = absl::StrCat(kName, ": role '", role, "'");
    if (!turn.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(where, " must be an object"));
    }
    ANABRANCH_RETURN_IF_ERROR(OnlyFields(turn, where, {"merge_into", "prefix", "suffix"}));
    Turn& read = turns_[role];
    ANABRANCH_ASSIGN_OR_RETURN(read.prefix, tokenizer::StringField(turn, "prefix", where, ""));
    ANABRANCH_ASSIGN_OR_RETURN(read.suffix, tokenizer::StringField(turn, "suffix", where, ""));
    ANABRANCH_ASSIGN_OR_RETURN(read.merge_into,
                               tokenizer::StringField(turn, "merge_into", where, ""));
  }
  for (const auto& [role, turn] : turns_) {
    if (turn.merge_into.empty()) continue;
    const auto target = turns_.find(turn.merge_into);
    if (target == turns_.end() || !target->second.merge_into.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(kName, ": role '", role, "': merge_into '",
                                                     turn.merge_into,
                                                     "' is not a role with a turn of its own"));
    }
  }
  if (has_default_system_ && !turns_.contains(kSystem)) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": 'default_system' needs a turn of the role 'system'"));
  }
  return absl::OkStatus();
}

absl::Status ChatFormat::ReadStop(const Json& json) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<std::string> stop, StringList(json, "stop"));
  for (const std::string& token : stop) {
    const std::optional<int32_t> id = tokenizer_->TokenId(token);
    if (!id.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(kName, ": stop token '", token, "' is not in the vocabulary"));
    }
    if (!absl::c_linear_search(stop_ids_, *id)) stop_ids_.push_back(*id);
  }
  return absl::OkStatus();
}

absl::Status ChatFormat::FindReplyEnds() {
  if (!stop_ids_.empty()) reply_suffix_ = {stop_ids_.front()};
  if (const auto turn = turns_.find(kAssistant); turn != turns_.end()) {
    ANABRANCH_ASSIGN_OR_RETURN(reply_suffix_, tokenizer_->Encode(turn->second.suffix, {}));
  }
  reply_opening_ = reply_prefix_;
  const auto user = turns_.find(kUser);
  if (!reply_opening_.empty() || user == turns_.end()) return absl::OkStatus();
  // Without a prefix a reply begins where the user's turn ends. How that end is written as tokens
  // may depend on the text before it, so take what two texts have in common.
  const std::vector<TextPiece> end = {{"a", false}, {user->second.suffix, true}};
  const std::vector<TextPiece> other = {{"1.", false}, {user->second.suffix, true}};
  ANABRANCH_ASSIGN_OR_RETURN(const auto ids, tokenizer_->EncodePieces(end, false));
  ANABRANCH_ASSIGN_OR_RETURN(const auto other_ids, tokenizer_->EncodePieces(other, false));
  reply_opening_ = CommonEnd(ids, other_ids);
  return absl::OkStatus();
}

absl::StatusOr<const ChatFormat::Turn*> ChatFormat::FindTurn(const std::string& role) const {
  const auto turn = turns_.find(role);
  if (turn != turns_.end()) return &turn->second;
  const auto name = [](std::string* out, const auto& entry) { out->append(entry.first); };
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown role '", role, "'; this model knows: ", absl::StrJoin(turns_, ", ", name)));
}

std::vector<int32_t> ChatFormat::CloseReply(absl::Span<const int32_t> context) const {
  if (context.empty() || reply_opening_.empty()) return {};
  const size_t size = context.size();
  for (; !context.empty(); context.remove_suffix(1)) {
    if (absl::c_linear_search(stop_ids_, context.back())) {
      // The model ends a reply with the stop token; the format may write more behind it.
      const auto stop = absl::c_find(reply_suffix_, context.back());
      if (context.size() < size || stop == reply_suffix_.end()) return {};
      return {stop + 1, reply_suffix_.end()};
    }
    if (context.size() < reply_opening_.size() ||
        context.last(reply_opening_.size()) != absl::MakeConstSpan(reply_opening_)) {
      continue;
    }
    // The end of a user's turn opens a reply only once something follows it.
    return reply_prefix_.empty() && context.size() == size ? std::vector<int32_t>{} : reply_suffix_;
  }
  return {};
}

absl::StatusOr<std::vector<TextPiece>> ChatFormat::Render(
    absl::Span<const ChatMessage> messages) const {
  std::vector<TextPiece> pieces, merged;
  const std::string* merge_into = nullptr;
  for (const ChatMessage& message : messages) {
    ANABRANCH_ASSIGN_OR_RETURN(const Turn* turn, FindTurn(message.role));
    if (merge_into != nullptr && *merge_into != message.role) break;
    std::string text = trim_ ? Trimmed(message.text) : message.text;
    if (!turn->merge_into.empty()) {
      merge_into = &turn->merge_into;
      merged = {{turn->prefix, true}, {std::move(text), false}, {turn->suffix, true}};
      continue;
    }
    pieces.push_back({turn->prefix, true});
    pieces.insert(pieces.end(), merged.begin(), merged.end());
    pieces.push_back({std::move(text), false});
    pieces.push_back({turn->suffix, true});
    merge_into = nullptr;
    merged.clear();
  }
  if (merge_into == nullptr) return pieces;
  return absl::InvalidArgumentError(absl::StrCat(
      "this model reads such a message as part of the next one, which must have the role '",
      *merge_into, "' and come in the same call"));
}

absl::StatusOr<std::vector<int32_t>> ChatFormat::Encode(absl::Span<const ChatMessage> messages,
                                                        absl::Span<const int32_t> context) const {
  std::vector<ChatMessage> all(messages.begin(), messages.end());
  if (context.empty() && has_default_system_ && (all.empty() || all.front().role != kSystem)) {
    all.insert(all.begin(), {kSystem, default_system_});
  }
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<TextPiece> pieces, Render(all));
  if (context.empty()) pieces.insert(pieces.begin(), {bos_, true});
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> turns,
                             tokenizer_->EncodePieces(pieces, context.empty()));
  std::vector<int32_t> ids = CloseReply(context);
  // A reply may have ended with the token that begins the next turn.
  const bool begun = ids.empty() && !context.empty() && !turns.empty() &&
                     turns.front() == context.back() &&
                     absl::c_linear_search(stop_ids_, context.back());
  ids.insert(ids.end(), turns.begin() + (begun ? 1 : 0), turns.end());
  return ids;
}

}  // namespace anabranch

#include "runtime/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/unicode_class.h"
#include "runtime/tokenizer/utf8.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

constexpr absl::string_view kName = "added_tokens";
constexpr size_t kMaxTokens = 100'000;
constexpr size_t kMaxContentBytes = 1024;

uint64_t EdgeKey(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
}

absl::StatusOr<AddedToken> ParseAddedToken(const Json& json) {
  AddedToken token;
  ANABRANCH_ASSIGN_OR_RETURN(token.content, StringField(json, "content", kName));
  if (token.content.empty() || token.content.size() > kMaxContentBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": a token's content must have 1 to ", kMaxContentBytes, " bytes"));
  }
  const Json* id = Find(json, "id");
  const std::string what = absl::StrCat(kName, ": id of '", token.content, "'");
  ANABRANCH_ASSIGN_OR_RETURN(token.id, TokenIdValue(id == nullptr ? Json() : *id, what));
  ANABRANCH_ASSIGN_OR_RETURN(token.special, BoolField(json, "special", kName, false));
  ANABRANCH_ASSIGN_OR_RETURN(token.single_word, BoolField(json, "single_word", kName, false));
  ANABRANCH_ASSIGN_OR_RETURN(token.lstrip, BoolField(json, "lstrip", kName, false));
  ANABRANCH_ASSIGN_OR_RETURN(token.rstrip, BoolField(json, "rstrip", kName, false));
  ANABRANCH_ASSIGN_OR_RETURN(token.normalized,
                             BoolField(json, "normalized", kName, !token.special));
  return token;
}

}  // namespace

absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const Json* json) {
  std::vector<AddedToken> tokens;
  if (json == nullptr) return tokens;
  if (!json->is_array() || json->size() > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, " must be an array of at most ", kMaxTokens, " tokens"));
  }
  for (const Json& item : *json) {
    ANABRANCH_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(item));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

AddedTokenMatcher::AddedTokenMatcher(const std::vector<const AddedToken*>& tokens,
                                     const std::vector<std::string>& patterns)
    : token_of_node_(1, nullptr) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (patterns[i].empty()) continue;
    starts_[static_cast<uint8_t>(patterns[i][0])] = true;
    uint32_t node = 0;
    for (const char byte : patterns[i]) {
      const auto next = static_cast<uint32_t>(token_of_node_.size());
      const auto [edge, is_new] = edges_.try_emplace(EdgeKey(node, byte), next);
      if (is_new) token_of_node_.push_back(nullptr);
      node = edge->second;
    }
    if (token_of_node_[node] == nullptr) token_of_node_[node] = tokens[i];
  }
}

bool AddedTokenMatcher::FindFrom(absl::string_view text, size_t pos, Match* match) const {
  for (; pos < text.size(); ++pos) {
    if (!starts_[static_cast<uint8_t>(text[pos])]) continue;
    match->token = nullptr;
    uint32_t node = 0;
    for (size_t end = pos; end < text.size();) {
      const auto edge = edges_.find(EdgeKey(node, text[end]));
      if (edge == edges_.end()) break;
      ++end;
      node = edge->second;
      if (token_of_node_[node] != nullptr) *match = {pos, end, token_of_node_[node]};
    }
    if (match->token != nullptr) return true;
  }
  return false;
}

bool AddedTokenMatcher::Accept(absl::string_view text, size_t previous_end, Match* match) {
  size_t before = match->begin, behind = match->end;
  if (match->token->single_word) {
    if (before > 0 && IsWordChar(PreviousCodePoint(text, &before))) return false;
    if (behind < text.size() && IsWordChar(NextCodePoint(text, &behind))) return false;
  }
  if (match->token->lstrip) {
    for (before = match->begin; before > previous_end; match->begin = before) {
      if (!IsWhitespace(PreviousCodePoint(text, &before))) break;
    }
  }
  if (match->token->rstrip) {
    for (behind = match->end; behind < text.size(); match->end = behind) {
      if (!IsWhitespace(NextCodePoint(text, &behind))) break;
    }
  }
  return true;
}

std::vector<Piece> AddedTokenMatcher::Split(absl::string_view text, bool parse_special) const {
  std::vector<Piece> pieces;
  size_t text_begin = 0, search_begin = 0;
  Match match;
  while (!edges_.empty() && FindFrom(text, search_begin, &match)) {
    search_begin = match.end;
    if (!parse_special && match.token->special) continue;
    if (!Accept(text, text_begin, &match)) continue;
    // A token that begins with white space can lie inside what the one before swallowed; as in the
    // reference it counts, and the text goes on behind it.
    if (text_begin < match.begin) {
      pieces.push_back({text.substr(text_begin, match.begin - text_begin), nullptr});
    }
    pieces.push_back({text.substr(match.begin, match.end - match.begin), match.token});
    text_begin = match.end;
  }
  if (text_begin < text.size()) pieces.push_back({text.substr(text_begin), nullptr});
  return pieces;
}

}  // namespace anabranch::tokenizer

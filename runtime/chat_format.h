// How a model wants its turns written. The JSON, in a model folder's chat_format.json or in
// runtime/chat_formats (see runtime/chat_formats.h):
//   {"tokens": ["<|user|>", "<|assistant|>", "<|end|>"], "bos": "<|bos|>",
//    "turns": {"user": {"prefix": "<|user|>", "suffix": "<|end|>"}, "assistant": {...},
//              "system": {"merge_into": "user", "suffix": "\n\n"}},
//    "default_system": "Be brief.", "trim": true, "reply_prefix": "<|assistant|>",
//    "stop": ["<|end|>"]}
// Only "turns" and "stop" are required.
//   tokens          control tokens that the vocabulary must have; no message can contain one
//   bos             written first in an empty context
//   turns           by role: what is written before and after a message's text. With "merge_into"
//                   it is written after the prefix of the next message, which must have that role
//   default_system  a system message put first in an empty context that brings none
//   trim            white space around a message's text is dropped
//   reply_prefix    what the model's reply is generated after
//   stop            tokens that end a reply
// Special tokens come only from the format; message text is always encoded as plain text, so a
// message that contains "<|end|>" cannot end its own turn. Text between two special tokens is
// encoded as one piece, as if the whole conversation had been written by the model's template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer.h"
#include "runtime/tokenizer/json_fields.h"

namespace anabranch {

struct ChatMessage {
  std::string role;
  std::string text;
};

class ChatFormat {
 public:
  // INVALID_ARGUMENT names the field, or the token that the tokenizer lacks.
  static absl::StatusOr<ChatFormat> FromJson(absl::string_view json, const Tokenizer& tokenizer);
  // The "tokens" of a format, which the tokenizer must be told of when it is loaded.
  static absl::StatusOr<std::vector<std::string>> ControlTokens(absl::string_view json);

  // Tokens of the messages after `context`: the bos comes first in an empty one; a reply that was
  // cut off at its end is closed first, so that no turn starts inside of it. INVALID_ARGUMENT for
  // an unknown role (names the known ones) and a message that cannot be merged into the next.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::Span<const ChatMessage> messages,
                                              absl::Span<const int32_t> context) const;
  const std::vector<int32_t>& stop_token_ids() const { return stop_ids_; }
  const std::vector<int32_t>& reply_prefix() const { return reply_prefix_; }

 private:
  struct Turn {
    std::string prefix, suffix;
    std::string merge_into;  // role of the next message; empty: a turn of its own
  };
  absl::Status ReadTurns(const tokenizer::Json& json);
  absl::Status ReadStop(const tokenizer::Json& json);
  absl::Status FindReplyEnds();
  absl::StatusOr<std::vector<TextPiece>> Render(absl::Span<const ChatMessage> messages) const;
  // What ends a reply that is open at the end of `context`, or completes the end of one.
  std::vector<int32_t> CloseReply(absl::Span<const int32_t> context) const;
  absl::StatusOr<const Turn*> FindTurn(const std::string& role) const;

  const Tokenizer* tokenizer_ = nullptr;  // outlives this
  std::string bos_;
  absl::btree_map<std::string, Turn> turns_;
  bool has_default_system_ = false, trim_ = false;
  std::string default_system_;
  std::vector<int32_t> reply_prefix_, stop_ids_;
  // A reply begins after reply_opening_ and is completed by reply_suffix_.
  std::vector<int32_t> reply_opening_, reply_suffix_;
};

}  // namespace anabranch

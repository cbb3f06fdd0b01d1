// How a model wants its turns written, from chat_format.json in the model's folder:
//   {"bos": "<|bos|>", "turns": {"user": {"prefix": "<|user|>", "suffix": "<|end|>"},
//    "assistant": {...}}, "reply_prefix": "<|assistant|>", "stop": ["<|end|>"]}
// Special tokens come only from the format; message text is always encoded as plain text, so a
// message that contains "<|end|>" cannot end its own turn. Models without the file take text and
// tokens, not messages.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer.h"

namespace anabranch {

struct ChatMessage {
  std::string role;
  std::string text;
};

class ChatFormat {
 public:
  static absl::StatusOr<ChatFormat> FromJson(absl::string_view json, const Tokenizer& tokenizer);

  // Tokens of the messages; with `at_start` the bos comes first. With `reply` the reply prefix
  // follows the last message. INVALID_ARGUMENT for an unknown role (names the known ones).
  absl::StatusOr<std::vector<int32_t>> Encode(absl::Span<const ChatMessage> messages, bool at_start,
                                              bool reply) const;
  // What ends a reply that was cut off at the end of `context` (cancelled, or out of tokens), so
  // that the next turn does not start inside of it. Empty if no reply is open.
  std::vector<int32_t> CloseOpenReply(absl::Span<const int32_t> context) const;
  const std::vector<int32_t>& stop_token_ids() const { return stop_ids_; }
  const std::vector<int32_t>& reply_prefix() const { return reply_prefix_; }

 private:
  struct Turn {
    std::vector<int32_t> prefix, suffix;
  };
  const Tokenizer* tokenizer_ = nullptr;  // outlives this
  std::vector<int32_t> bos_, reply_prefix_, reply_suffix_, stop_ids_;
  absl::btree_map<std::string, Turn> turns_;
};

}  // namespace anabranch

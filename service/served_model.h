// The model a server serves, with its tokenizer and chat format if it ships them, and what clients
// send turned into tokens and back. Immutable after load; any thread may use it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "anabranch/v1/resources.pb.h"
#include "runtime/model.h"
#include "runtime/model_text.h"

namespace anabranch {

class ServedModel {
 public:
  // Loads config and weights, and the text files as LoadModelText does; those may be missing.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const std::string& directory,
                                                           std::string name,
                                                           const LoadOptions& options,
                                                           const std::string& chat_format);

  const std::string& name() const { return name_; }  // what clients call it
  const std::shared_ptr<Model>& model() const { return model_; }
  const Tokenizer* tokenizer() const { return text_.tokenizer.get(); }  // null: none
  // null: none
  const ChatFormat* chat() const { return text_.chat ? &*text_.chat : nullptr; }
  const std::string& chat_name() const { return text_.chat_name; }  // which one; "none"
  // Tokens that end any text: of config.json or generation_config.json, else of the tokenizer.
  std::vector<int32_t> eos_token_ids() const;
  int32_t vocab() const;        // rows of the embedding: what token content may name
  int32_t valid_vocab() const;  // ids the sampler may choose

  // Tokens of what a client sent after `context`: messages start with the bos in an empty one, and
  // first close a reply that was cut off at its end. INVALID_ARGUMENT (empty, bad
  // UTF-8, unknown role, id outside the vocabulary, more than max_tokens), FAILED_PRECONDITION (no
  // tokenizer or chat format). `field` names the content in messages.
  absl::StatusOr<std::vector<int32_t>> Encode(const v1::Content& content,
                                              absl::Span<const int32_t> context, int64_t max_tokens,
                                              const std::string& field) const;
  // Text of tokens as written, special tokens included; empty without a tokenizer.
  std::string Text(absl::Span<const int32_t> tokens) const;
  // FAILED_PRECONDITION unless the model has a tokenizer.
  absl::Status RequireTokenizer() const;
  // FAILED_PRECONDITION unless the model has a chat format.
  absl::Status RequireChat() const;

 private:
  ServedModel() = default;
  absl::StatusOr<std::vector<int32_t>> EncodeUnchecked(const v1::Content& content,
                                                       absl::Span<const int32_t> context,
                                                       const std::string& field) const;

  std::string name_;
  std::shared_ptr<Model> model_;
  ModelText text_;
};

}  // namespace anabranch

#include "service/served_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(const std::string& directory,
                                                               std::string name,
                                                               const LoadOptions& options,
                                                               const std::string& chat_format) {
  std::unique_ptr<ServedModel> served(new ServedModel);
  served->name_ = std::move(name);
  ANABRANCH_ASSIGN_OR_RETURN(served->text_, LoadModelText(directory, chat_format));
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<Model> model, Model::Load(directory, options));
  served->model_ = std::move(model);
  return served;
}

std::vector<int32_t> ServedModel::eos_token_ids() const {
  std::vector<int32_t> ids = model_->description().eos_token_ids;
  if (ids.empty() && text_.eos_token_id.has_value()) ids.push_back(*text_.eos_token_id);
  return ids;
}

int32_t ServedModel::vocab() const { return model_->description().vocab; }

int32_t ServedModel::valid_vocab() const {
  // The matrix may have padding rows that no token stands for.
  return tokenizer() == nullptr ? vocab() : std::min(vocab(), tokenizer()->vocab_size());
}

absl::Status ServedModel::RequireTokenizer() const {
  if (tokenizer() != nullptr) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
                         "the model has no tokenizer.json: send tokens instead of text");
}

absl::Status ServedModel::RequireChat() const {
  if (chat() != nullptr) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_CHAT_FORMAT",
                         "the model has no chat format: send text or tokens, and no reply");
}

absl::StatusOr<std::vector<int32_t>> ServedModel::EncodeUnchecked(const v1::Content& content,
                                                                  absl::Span<const int32_t> context,
                                                                  const std::string& field) const {
  switch (content.kind_case()) {
    case v1::Content::kTokens:
      return std::vector<int32_t>(content.tokens().ids().begin(), content.tokens().ids().end());
    case v1::Content::kText:
      ANABRANCH_RETURN_IF_ERROR(RequireTokenizer());
      return tokenizer()->Encode(content.text(), {});
    case v1::Content::kMessages: {
      ANABRANCH_RETURN_IF_ERROR(RequireChat());
      std::vector<ChatMessage> messages;
      for (const v1::Message& message : content.messages().messages()) {
        messages.push_back({message.role(), message.text()});
      }
      return chat()->Encode(messages, context);
    }
    case v1::Content::KIND_NOT_SET:
      break;
  }
  return InvalidField(field, "one of text, messages and tokens must be set");
}

absl::StatusOr<std::vector<int32_t>> ServedModel::Encode(const v1::Content& content,
                                                         absl::Span<const int32_t> context,
                                                         int64_t max_tokens,
                                                         const std::string& field) const {
  auto tokens = EncodeUnchecked(content, context, field);
  if (!tokens.ok()) {
    if (!absl::IsInvalidArgument(tokens.status())) return tokens.status();
    return WithReason(
        absl::InvalidArgumentError(absl::StrCat(field, ": ", tokens.status().message())),
        "INVALID_FIELD");
  }
  const int64_t count = tokens->size();
  if (count > max_tokens) return LimitExceeded(absl::StrCat(field, " tokens"), count, max_tokens);
  for (int32_t token : *tokens) {
    if (token < 0 || token >= vocab()) {
      return InvalidField(field, absl::StrCat("token ", token, " is not in the vocabulary of ",
                                              vocab(), " tokens"));
    }
  }
  return tokens;
}

std::string ServedModel::Text(absl::Span<const int32_t> tokens) const {
  return tokenizer() == nullptr ? "" : tokenizer()->Decode(tokens, /*skip_special=*/false);
}

}  // namespace anabranch

#include "service/served_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxChatFormatBytes = 1 << 20;

absl::StatusOr<std::string> ReadSmallFile(const fs::path& path) {
  std::error_code error;
  const uint64_t size = fs::file_size(path, error);
  if (error || size > kMaxChatFormatBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": cannot be read, or larger than 1 MiB"));
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return absl::DataLossError(absl::StrCat(path.string(), ": cannot be read"));
  return std::move(text).str();
}

absl::Status WithPath(const absl::Status& status, const fs::path& path) {
  return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
}

absl::Status NoTokenizer() {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
                         "the model has no tokenizer.json: send tokens instead of text");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(const std::string& directory,
                                                               const LoadOptions& options) {
  std::unique_ptr<ServedModel> served(new ServedModel);
  fs::path path = fs::path(directory).lexically_normal();
  served->name_ =
      path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
  ANABRANCH_RETURN_IF_ERROR(served->LoadTextFiles(directory));
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<Model> model, Model::Load(directory, options));
  served->model_ = std::move(model);
  return served;
}

absl::Status ServedModel::LoadTextFiles(const std::string& directory) {
  const fs::path tokenizer_path = fs::path(directory) / "tokenizer.json";
  const fs::path chat_path = fs::path(directory) / "chat_format.json";
  std::error_code error;
  if (fs::exists(tokenizer_path, error)) {
    auto tokenizer = Tokenizer::FromFile(tokenizer_path.string());
    if (!tokenizer.ok()) return tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }
  if (tokenizer_ == nullptr || !fs::exists(chat_path, error)) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const std::string json, ReadSmallFile(chat_path));
  auto chat = ChatFormat::FromJson(json, *tokenizer_);
  if (!chat.ok()) return WithPath(chat.status(), chat_path);
  chat_ = *std::move(chat);
  return absl::OkStatus();
}

int32_t ServedModel::vocab() const { return model_->description().vocab; }

int32_t ServedModel::valid_vocab() const {
  // The matrix may have padding rows that no token stands for.
  return tokenizer_ == nullptr ? vocab() : std::min(vocab(), tokenizer_->vocab_size());
}

absl::Status ServedModel::RequireChat() const {
  if (chat_) return absl::OkStatus();
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
      if (tokenizer_ == nullptr) return NoTokenizer();
      return tokenizer_->Encode(content.text(), {});
    case v1::Content::kMessages: {
      ANABRANCH_RETURN_IF_ERROR(RequireChat());
      std::vector<ChatMessage> messages;
      for (const v1::Message& message : content.messages().messages()) {
        messages.push_back({message.role(), message.text()});
      }
      std::vector<int32_t> tokens = chat_->CloseOpenReply(context);
      ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> turns,
                                 chat_->Encode(messages, context.empty(), /*reply=*/false));
      tokens.insert(tokens.end(), turns.begin(), turns.end());
      return tokens;
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
  return tokenizer_ == nullptr ? "" : tokenizer_->Decode(tokens, /*skip_special=*/false);
}

}  // namespace anabranch

#include "clients/cli/text_input.h"

#include <utf8proc.h>

#include <istream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cli/exit_code.h"

namespace anabranch::cli {
namespace {

// Where to cut a full buffer.
size_t CutPoint(absl::string_view text) {
  size_t line_end = text.rfind('\n');
  if (line_end != absl::string_view::npos) return line_end + 1;
  size_t cut = text.size();
  // The last character may go on after the buffer: find its first byte.
  for (size_t back = 1; back <= 4 && back < text.size(); ++back) {
    unsigned char byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    if (byte >= 0xC0) cut = text.size() - back;
    break;
  }
  return cut;
}

}  // namespace

absl::Status CheckUtf8(absl::string_view text, absl::string_view name, uint64_t offset) {
  const auto* data = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  for (utf8proc_ssize_t at = 0; at < size;) {
    utf8proc_int32_t character;
    utf8proc_ssize_t length = utf8proc_iterate(data + at, size - at, &character);
    if (length <= 0) {
      return UsageError(absl::StrCat(name, " is not UTF-8 text: bad byte at offset ",
                                     offset + static_cast<uint64_t>(at),
                                     "; convert it first, for example with iconv"));
    }
    at += length;
  }
  return absl::OkStatus();
}

TextInput::TextInput(std::istream& in, std::string name, size_t max_piece)
    : in_(in), name_(std::move(name)), max_piece_(max_piece) {}

absl::StatusOr<std::optional<std::string>> TextInput::Next() {
  // One byte more than a piece, to know whether this one is the last.
  while (in_ && buffer_.size() <= max_piece_) {
    size_t old = buffer_.size();
    buffer_.resize(max_piece_ + 1);
    in_.read(buffer_.data() + old, static_cast<std::streamsize>(buffer_.size() - old));
    buffer_.resize(old + static_cast<size_t>(in_.gcount()));
  }
  if (in_.bad()) return UsageError(absl::StrCat("cannot read ", name_));
  if (buffer_.empty()) return std::nullopt;
  size_t cut = buffer_.size();
  if (buffer_.size() > max_piece_) {
    cut = CutPoint(absl::string_view(buffer_).substr(0, max_piece_));
  }
  std::string piece = buffer_.substr(0, cut);
  absl::Status valid = CheckUtf8(piece, name_, given_bytes_);
  if (!valid.ok()) return valid;
  buffer_.erase(0, cut);
  given_bytes_ += cut;
  return std::optional<std::string>(std::move(piece));
}

}  // namespace anabranch::cli

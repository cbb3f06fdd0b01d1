// Text that a user gives to read: checked UTF-8, in pieces that fit into one request.
//
//   TextInput input(std::cin, "standard input");
//   while (true) {
//     absl::StatusOr<std::optional<std::string>> piece = input.Next();
//     if (!piece.ok() || !piece->has_value()) break;
//     ...
//   }
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace anabranch::cli {

// Largest piece: a request stays below the 4 MiB that gRPC servers accept by default.
inline constexpr size_t kMaxPieceBytes = 3u << 20;

// OK, or a usage error that names the byte where `text` (which starts at `offset` of `name`) stops
// being UTF-8.
absl::Status CheckUtf8(absl::string_view text, absl::string_view name, uint64_t offset = 0);

// Reads a stream to its end. Text below `max_piece` comes as one piece. Longer text is cut after
// the last line end that fits, or if there is none between two characters. Each piece is encoded to
// tokens on its own, so a cut can change the tokens right at it.
class TextInput {
 public:
  // `in` outlives this. `name` is for error messages.
  TextInput(std::istream& in, std::string name, size_t max_piece = kMaxPieceBytes);

  // The next piece, never empty; nullopt at the end.
  absl::StatusOr<std::optional<std::string>> Next();

 private:
  std::istream& in_;
  std::string name_;
  size_t max_piece_;
  std::string buffer_;        // read, not yet given out
  uint64_t given_bytes_ = 0;  // given out so far
};

}  // namespace anabranch::cli

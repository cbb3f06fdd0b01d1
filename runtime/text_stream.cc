#include "runtime/text_stream.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer/utf8.h"

namespace anabranch {
namespace {

struct StopMatch {
  size_t begin = 0, end = 0;
  size_t index = 0;  // of the stop string
};

// The stop string that is completed first, however the text arrived; of those that are completed by
// the same byte, the longest.
std::optional<StopMatch> FindStop(absl::string_view text,
                                  const std::vector<std::string>& stop_strings) {
  std::optional<StopMatch> best;
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    const size_t begin = text.find(stop_strings[i]);
    if (begin == absl::string_view::npos) continue;
    const size_t end = begin + stop_strings[i].size();
    if (!best.has_value() || end < best->end || (end == best->end && begin < best->begin)) {
      best = StopMatch{begin, end, i};
    }
  }
  return best;
}

// Bytes at the end of `text` that may be the beginning of a stop string.
size_t HeldBytes(absl::string_view text, const std::vector<std::string>& stop_strings) {
  size_t held = 0;
  for (const std::string& stop : stop_strings) {
    for (size_t length = std::min(stop.size() - 1, text.size()); length > held; --length) {
      if (absl::EndsWith(text, absl::string_view(stop).substr(0, length))) held = length;
    }
  }
  return held;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::vector<std::string> stop_strings)
    : tokenizer_(tokenizer), stop_strings_(std::move(stop_strings)) {
  stop_strings_.erase(std::remove(stop_strings_.begin(), stop_strings_.end(), ""),
                      stop_strings_.end());
}

TextStream::Delta TextStream::Push(int32_t token) {
  Delta delta;
  delta.stopped = stopped_;
  delta.stop_string = stop_string_;
  if (stopped_ || tokenizer_.IsSpecial(token)) return delta;
  bytes_ += is_first_ ? tokenizer_.FirstTokenBytes(token) : tokenizer_.TokenBytes(token);
  is_first_ = false;
  bytes_.erase(0, tokenizer::AppendLossyUtf8(bytes_, /*is_final=*/false, &held_));
  if (const auto stop = FindStop(held_, stop_strings_); stop.has_value()) {
    delta.text = held_.substr(0, stop->begin);
    delta.stopped = stopped_ = true;
    delta.stop_string = stop_string_ = stop_strings_[stop->index];
    held_.clear();
    bytes_.clear();
    return delta;
  }
  delta.text = held_.substr(0, held_.size() - HeldBytes(held_, stop_strings_));
  held_.erase(0, delta.text.size());
  return delta;
}

std::string TextStream::Finish() {
  std::string rest = std::exchange(held_, "");
  tokenizer::AppendLossyUtf8(std::exchange(bytes_, ""), /*is_final=*/true, &rest);
  return rest;
}

}  // namespace anabranch

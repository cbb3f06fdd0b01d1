#include "clients/cli/format.h"

#include <algorithm>
#include <map>
#include <ostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace anabranch::cli {
namespace {

std::string HumanSpan(absl::Duration d) {
  if (d < absl::Minutes(1)) return absl::StrCat(absl::ToInt64Seconds(d), " s");
  if (d < absl::Hours(1)) return absl::StrCat(absl::ToInt64Minutes(d), " min");
  if (d < absl::Hours(48)) return absl::StrCat(absl::ToInt64Hours(d), " h");
  return absl::StrCat(absl::ToInt64Hours(d) / 24, " d");
}

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

}  // namespace

std::string HumanBytes(int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  constexpr absl::string_view kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.*f %s", value < 9.95 ? 1 : 0, value, kUnits[unit]);
}

std::string HumanCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  size_t first = count < 0 ? 1 : 0;
  for (size_t end = digits.size(); end > first + 3;) {
    end -= 3;
    digits.insert(end, ",");
  }
  return digits;
}

std::string HumanAge(absl::Duration d) {
  return d < absl::Seconds(1) ? "just now" : absl::StrCat(HumanSpan(d), " ago");
}

std::string HumanMillis(double millis) {
  if (millis < 9.95) return absl::StrFormat("%.1f ms", millis);
  if (millis < 999.5) return absl::StrFormat("%.0f ms", millis);
  return absl::StrFormat("%.1f s", millis / 1000);
}

std::string AgeOf(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0 && time.nanos() == 0) return "-";
  return HumanAge(absl::Now() - TimeOf(time));
}

std::string ExpiryOf(const google::protobuf::Timestamp& time) {
  absl::Duration left = TimeOf(time) - absl::Now();
  return left <= absl::Seconds(1) ? "now" : absl::StrCat("in ", HumanSpan(left));
}

std::string LabelList(const google::protobuf::Map<std::string, std::string>& labels) {
  if (labels.empty()) return "-";
  std::map<std::string, std::string> sorted(labels.begin(), labels.end());
  return Printable(absl::StrJoin(sorted, ",", absl::PairFormatter("=")));
}

std::string UsageLine(const v1::Usage& usage) {
  std::string line = absl::StrCat(
      "reused ", HumanCount(usage.tokens_reused()), ", replayed ",
      HumanCount(usage.tokens_replayed()), ", read ", HumanCount(usage.tokens_read()),
      ", generated ", HumanCount(usage.tokens_generated()), " tokens; queue ",
      HumanMillis(usage.queue_ms()), ", restore ", HumanMillis(usage.restore_ms()), ", compute ",
      HumanMillis(usage.compute_ms()), "; state ", HumanBytes(usage.state_bytes_loaded()),
      " loaded, ", HumanBytes(usage.state_bytes_stored()), " stored");
  if (usage.lossy_restores() > 0) {
    absl::StrAppend(&line, "; went on from lossy states ", HumanCount(usage.lossy_restores()),
                    " times");
  }
  if (!usage.miss_reason().empty()) {
    absl::StrAppend(&line, "; nothing reused: ", usage.miss_reason());
  }
  if (usage.branch_token_count() > 0) {
    absl::StrAppend(&line, "; parts from a history read before at token ",
                    HumanCount(usage.branch_token_count()), ", captured there");
  }
  return line;
}

std::string Printable(absl::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char c = static_cast<unsigned char>(text[i]);
    // C1 controls, U+0080 to U+009F, are C2 80 to C2 9F in UTF-8.
    bool c1 = c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (c1) {
      result += "\xEF\xBF\xBD";
      ++i;
    } else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
      result += "\xEF\xBF\xBD";  // U+FFFD
    } else {
      result += text[i];
    }
  }
  return result;
}

void AddUsage(const v1::Usage& more, v1::Usage& total) {
  total.set_tokens_reused(total.tokens_reused() + more.tokens_reused());
  total.set_tokens_replayed(total.tokens_replayed() + more.tokens_replayed());
  total.set_tokens_read(total.tokens_read() + more.tokens_read());
  total.set_tokens_generated(total.tokens_generated() + more.tokens_generated());
  total.set_state_bytes_loaded(total.state_bytes_loaded() + more.state_bytes_loaded());
  total.set_state_bytes_stored(total.state_bytes_stored() + more.state_bytes_stored());
  total.set_queue_ms(total.queue_ms() + more.queue_ms());
  total.set_restore_ms(total.restore_ms() + more.restore_ms());
  total.set_compute_ms(total.compute_ms() + more.compute_ms());
  if (!more.miss_reason().empty()) total.set_miss_reason(more.miss_reason());
}

Table::Table(std::vector<std::string> headers, Options options) : options_(std::move(options)) {
  rows_.push_back(std::move(headers));
}

void Table::Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

void Table::Print(std::ostream& out) const {
  std::vector<size_t> widths(rows_[0].size(), 0);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      std::string padding(widths[i] - row[i].size(), ' ');
      bool right = options_.right_aligned.contains(i);
      bool last = i + 1 == row.size();
      absl::StrAppend(&line, right ? padding : "", row[i], right || last ? "" : padding,
                      last ? "" : "  ");
    }
    out << line << '\n';
  }
}

void PrintFields(const std::vector<std::pair<std::string, std::string>>& fields,
                 std::ostream& out) {
  size_t width = 0;
  for (const auto& [key, value] : fields) width = std::max(width, key.size());
  for (const auto& [key, value] : fields) {
    out << key << std::string(width - key.size() + 2, ' ') << value << '\n';
  }
}

}  // namespace anabranch::cli

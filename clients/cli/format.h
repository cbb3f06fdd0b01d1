// Text for people: sizes, ages, counts, tables.
//
//   Table table({"NAME", "SIZE"}, {.right_aligned = {1}});
//   table.Add({"notes", HumanBytes(1536)});
//   table.Print(out);      // NAME      SIZE
//                          // notes  1.5 KiB
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "anabranch/v1/resources.pb.h"

namespace anabranch::cli {

std::string HumanBytes(int64_t bytes);   // "0 B", "1.5 KiB", "12 MiB"
std::string HumanCount(int64_t count);   // "1,234,567"
std::string HumanAge(absl::Duration d);  // "just now", "5 s ago", "3 min ago", "2 h ago", "4 d ago"
std::string HumanMillis(double millis);  // "0.4 ms", "12 ms", "3.2 s"

// The age of a timestamp now; "-" if it is unset.
std::string AgeOf(const google::protobuf::Timestamp& time);
// "in 3 h", or "now" once it has passed.
std::string ExpiryOf(const google::protobuf::Timestamp& time);

// "key=value,key=value" sorted by key; "-" if empty.
std::string LabelList(const google::protobuf::Map<std::string, std::string>& labels);

// One line: "reused 1,024, replayed 0, read 12, generated 5 tokens; queue 0.1 ms, ...".
std::string UsageLine(const v1::Usage& usage);

// `text` without terminal control characters, which could rewrite the screen. Newlines and tabs
// stay.
std::string Printable(absl::string_view text);

// Sums up what several calls cost; the last miss reason that is not empty is kept.
void AddUsage(const v1::Usage& more, v1::Usage& total);

// Columns as wide as their widest cell, two spaces apart. Rows have as many cells as headers.
class Table {
 public:
  struct Options {
    absl::flat_hash_set<size_t> right_aligned = {};
  };
  Table(std::vector<std::string> headers, Options options);
  void Add(std::vector<std::string> row);
  void Print(std::ostream& out) const;

 private:
  std::vector<std::vector<std::string>> rows_;  // the headers first
  Options options_;
};

// Prints "key  value" lines with the values aligned.
void PrintFields(const std::vector<std::pair<std::string, std::string>>& fields, std::ostream& out);

}  // namespace anabranch::cli

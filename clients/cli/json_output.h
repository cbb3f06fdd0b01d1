// Machine output: the API's messages as JSON, one value per line.
//
//   PrintJson({{"type", "done"}, {"usage", ToJson(done.usage())}}, out);
//
// Field names are those of the protos, every field is present also when it is zero, and the mapping
// is protobuf's standard one with one difference: 64-bit integers are numbers, not strings.
#pragma once

#include <google/protobuf/message.h>

#include <iosfwd>
#include <nlohmann/json.hpp>

namespace anabranch::cli {

// Keeps the order in which fields were added.
using Json = nlohmann::ordered_json;

Json ToJson(const google::protobuf::Message& message);

// Writes the value on one line and flushes it, so that a reader of a pipe sees it at once.
void PrintJson(const Json& value, std::ostream& out);

}  // namespace anabranch::cli

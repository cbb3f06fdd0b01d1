#include "clients/cli/json_output.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include <ostream>
#include <string>

#include "absl/strings/numbers.h"

namespace anabranch::cli {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

void NumbersFromStrings(const Descriptor& type, Json& value);

// Turns the decimal strings of one field's 64-bit integers into numbers.
void FixField(const FieldDescriptor& field, Json& value) {
  if (value.is_array() || field.is_map()) {
    const FieldDescriptor* element = field.is_map() ? field.message_type()->map_value() : &field;
    for (Json& item : value) {
      if (!item.is_array()) FixField(*element, item);
    }
    return;
  }
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    if (value.is_object()) NumbersFromStrings(*field.message_type(), value);
    return;
  }
  if (!value.is_string()) return;
  const std::string& text = value.get_ref<const std::string&>();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT64) {
    if (int64_t number; absl::SimpleAtoi(text, &number)) value = number;
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
    if (uint64_t number; absl::SimpleAtoi(text, &number)) value = number;
  }
}

void NumbersFromStrings(const Descriptor& type, Json& value) {
  for (auto& [name, item] : value.items()) {
    const FieldDescriptor* field = type.FindFieldByName(name);
    if (field != nullptr) FixField(*field, item);
  }
}

}  // namespace

Json ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  Json value = Json::parse(status.ok() ? text : "{}", nullptr, /*allow_exceptions=*/false);
  NumbersFromStrings(*message.GetDescriptor(), value);
  return value;
}

void PrintJson(const Json& value, std::ostream& out) {
  // Invalid UTF-8 becomes U+FFFD instead of an exception.
  out << value.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n' << std::flush;
}

}  // namespace anabranch::cli

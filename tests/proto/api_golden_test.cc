// The API within v1 only grows. proto/API_GOLDEN.txt lists every service, method, message, field
// and enum value; a difference fails until the list is changed too, which is a decision to review.
// To write the list anew: ANABRANCH_UPDATE_GOLDEN=1 api_golden_test
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

#include "anabranch/v1/admin.pb.h"
#include "anabranch/v1/bundles.pb.h"
#include "anabranch/v1/maintenance.pb.h"
#include "anabranch/v1/resources.pb.h"
#include "anabranch/v1/retention.pb.h"
#include "anabranch/v1/sessions.pb.h"
#include "anabranch/v1/states.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace anabranch {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;

std::string TypeOf(const FieldDescriptor& field) {
  if (field.is_map()) {
    return "map<" + TypeOf(*field.message_type()->map_key()) + "," +
           TypeOf(*field.message_type()->map_value()) + ">";
  }
  if (field.message_type() != nullptr) return field.message_type()->full_name();
  if (field.enum_type() != nullptr) return field.enum_type()->full_name();
  return field.type_name();
}

void AddMessage(const Descriptor& message, std::set<std::string>* lines) {
  if (message.options().map_entry()) return;
  lines->insert("message " + message.full_name());
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    std::string line = "field " + field.full_name() + " = " + std::to_string(field.number()) + " " +
                       (field.is_repeated() && !field.is_map() ? "repeated " : "") + TypeOf(field);
    if (field.containing_oneof() != nullptr) line += " in " + field.containing_oneof()->name();
    lines->insert(line);
  }
  for (int i = 0; i < message.nested_type_count(); ++i) AddMessage(*message.nested_type(i), lines);
}

void AddEnum(const EnumDescriptor& type, std::set<std::string>* lines) {
  for (int i = 0; i < type.value_count(); ++i) {
    lines->insert("enum " + type.full_name() + "." + type.value(i)->name() + " = " +
                  std::to_string(type.value(i)->number()));
  }
}

void AddMethod(const MethodDescriptor& method, std::set<std::string>* lines) {
  lines->insert("rpc " + method.full_name() + "(" + (method.client_streaming() ? "stream " : "") +
                method.input_type()->full_name() + ") returns (" +
                (method.server_streaming() ? "stream " : "") + method.output_type()->full_name() +
                ")");
}

std::set<std::string> DescribeApi() {
  const FileDescriptor* files[] = {
      v1::State::descriptor()->file(),           v1::CreateSessionRequest::descriptor()->file(),
      v1::GetStateRequest::descriptor()->file(), v1::ServerStatus::descriptor()->file(),
      v1::GarbageReport::descriptor()->file(),   v1::SearchRequest::descriptor()->file(),
      v1::BundleInfo::descriptor()->file(),      v1::Backup::descriptor()->file(),
      google::rpc::Status::descriptor()->file(), google::rpc::ErrorInfo::descriptor()->file()};
  std::set<std::string> lines;
  for (const FileDescriptor* file : files) {
    for (int i = 0; i < file->message_type_count(); ++i) AddMessage(*file->message_type(i), &lines);
    for (int i = 0; i < file->enum_type_count(); ++i) AddEnum(*file->enum_type(i), &lines);
    for (int i = 0; i < file->service_count(); ++i) {
      for (int j = 0; j < file->service(i)->method_count(); ++j) {
        AddMethod(*file->service(i)->method(j), &lines);
      }
    }
  }
  return lines;
}

TEST(ApiGoldenTest, EveryElementOfTheApiIsInTheGoldenList) {
  const std::set<std::string> actual = DescribeApi();
  if (std::getenv("ANABRANCH_UPDATE_GOLDEN") != nullptr) {
    std::ofstream file(ANABRANCH_API_GOLDEN);
    for (const std::string& line : actual) file << line << "\n";
  }
  std::set<std::string> golden;
  std::ifstream file(ANABRANCH_API_GOLDEN);
  ASSERT_TRUE(file) << ANABRANCH_API_GOLDEN;
  for (std::string line; std::getline(file, line);) golden.insert(line);
  EXPECT_GT(golden.size(), 150u);
  EXPECT_THAT(actual, testing::ContainerEq(golden));
}

}  // namespace
}  // namespace anabranch

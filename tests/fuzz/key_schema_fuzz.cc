// Feeds bytes to the parsers of keys. A key that parses must be built again from its parts.
#include <cstdint>
#include <string>

#include "statestore/key_schema.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace anabranch;
  const std::string key(reinterpret_cast<const char*>(data), size);
  const std::string scope = PrefixScopeKey("t", std::string(16, 's'));
  for (const std::string& each : {key, scope + key}) {
    const auto entry = ParsePrefixEntryKey(scope, each);
    if (entry.ok() && PrefixEntryKey(scope, entry->length, entry->hash, entry->state) != each) {
      __builtin_trap();
    }
  }
  const std::string of_tenant = TenantPrefix("t") + key;
  const auto created = ParseTimelineKey("t", of_tenant);
  if (created.ok() && TimelineKey("t", created->created_unix_nanos, created->state) != of_tenant) {
    __builtin_trap();
  }
  const std::string answer = AnswerTimePrefix() + key;
  const auto answered = ParseAnswerTimeKey(answer);
  if (answered.ok() && AnswerTimeKey(answered->unix_nanos, answered->answer_key) != answer) {
    __builtin_trap();
  }
  const std::string prefix = LogChunkPrefix("t", "s");
  const auto position = PositionOfLogChunkKey(prefix, prefix + key);
  if (position.ok() && LogChunkKey("t", "s", *position) != prefix + key) __builtin_trap();
  return 0;
}

// The RocksDB settings that the durability protocol relies on (DURABILITY.md gives the reasons).
#pragma once

#include "statestore/database.h"
#include "statestore/key_schema.h"
#include "statestore/state_store.h"

namespace rocksdb {
class Env;
struct ColumnFamilyOptions;
struct DBOptions;
struct WriteOptions;
}  // namespace rocksdb

namespace anabranch {

// The file system of the library.
rocksdb::Env& EnvOf(const StoreOptions& options);
// Of a database whose files are `env`'s.
rocksdb::DBOptions DatabaseOptions(rocksdb::Env& env, bool create);
// `cache_holder` shares one block cache between families: pass the first family's options to the
// next call, or null.
rocksdb::ColumnFamilyOptions FamilyOptions(Family family, const StoreOptions& options,
                                           const rocksdb::ColumnFamilyOptions* cache_holder);
// With per-key protection.
rocksdb::WriteOptions WriteOptionsFor(Durability durability);

}  // namespace anabranch

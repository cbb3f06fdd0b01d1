// Changes of a library's database under its feet, while nobody has it open: what a disk might do.
#pragma once

#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "statestore/key_schema.h"

namespace anabranch {

using EditDatabase =
    absl::FunctionRef<void(rocksdb::DB& db, const std::vector<rocksdb::ColumnFamilyHandle*>&)>;

// `path`: the database itself. Handles by family. `options`: of each family, for tests that write
// tables.
inline void WithClosedLibrary(const std::string& path, EditDatabase edit,
                              const rocksdb::ColumnFamilyOptions& options = {}) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (int i = 0; i < kFamilies; ++i) {
    families.emplace_back(FamilyName(static_cast<Family>(i)), options);
  }
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open({}, path, families, &handles, &opened).ok());
  const std::unique_ptr<rocksdb::DB> db(opened);
  edit(*db, handles);
  for (auto* each : handles) ASSERT_TRUE(db->DestroyColumnFamilyHandle(each).ok());
}

// Changes the value of a key that is there.
inline void EditStoredValue(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* handle,
                            const std::string& key, absl::FunctionRef<void(std::string&)> edit) {
  std::string value;
  ASSERT_TRUE(db.Get({}, handle, key, &value).ok());
  edit(value);
  ASSERT_TRUE(db.Put({}, handle, key, value).ok());
}

}  // namespace anabranch

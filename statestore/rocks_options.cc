#include "statestore/rocks_options.h"

#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/file_checksum.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>

#include "statestore/rocks_crc32c.h"

namespace anabranch {
namespace {

constexpr size_t kProtectionBytes = 8;
constexpr uint64_t kMaxLogFileBytes = 4u << 20;

// Large values, written once and read whole: kept out of the LSM tree, so that compaction does not
// copy them.
bool HoldsLargeValues(Family family) {
  return family == Family::kPayloads || family == Family::kBlobs;
}

std::shared_ptr<rocksdb::Cache> BlockCache(const StoreOptions& options,
                                           const rocksdb::ColumnFamilyOptions* holder) {
  if (holder == nullptr) return rocksdb::NewLRUCache(options.block_cache_bytes);
  return holder->table_factory->GetOptions<rocksdb::BlockBasedTableOptions>()->block_cache;
}

}  // namespace

rocksdb::Env& EnvOf(const StoreOptions& options) {
  return options.env != nullptr ? *options.env : *rocksdb::Env::Default();
}

rocksdb::DBOptions DatabaseOptions(rocksdb::Env& env, bool create) {
  UseProcessorCrc32c();
  rocksdb::DBOptions db;
  db.env = &env;
  db.create_if_missing = create;
  db.create_missing_column_families = create;
  db.paranoid_checks = true;
  // Stops at the first bad WAL record. What it could silently drop is caught by the high-water
  // mark.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  db.track_and_verify_wals_in_manifest = true;
  // Nothing resumes by itself after an error (database.cc).
  db.max_bgerror_resume_count = 0;
  // All that is in memory is in the synced WAL, but for a key without meaning (database.cc).
  db.avoid_flush_during_shutdown = true;
  db.file_checksum_gen_factory = rocksdb::GetFileChecksumGenCrc32cFactory();
  db.max_background_jobs = 2;
  db.max_log_file_size = kMaxLogFileBytes;
  db.keep_log_file_num = 4;
  // Bounds the WAL, and with it the time to open after a crash.
  db.max_total_wal_size = 256u << 20;
  return db;
}

rocksdb::ColumnFamilyOptions FamilyOptions(Family family, const StoreOptions& options,
                                           const rocksdb::ColumnFamilyOptions* cache_holder) {
  rocksdb::ColumnFamilyOptions cf;
  cf.memtable_protection_bytes_per_key = kProtectionBytes;
  cf.force_consistency_checks = true;
  cf.compression = rocksdb::kNoCompression;
  cf.write_buffer_size = options.write_buffer_bytes / (HoldsLargeValues(family) ? 1 : 4);
  if (HoldsLargeValues(family)) {
    cf.enable_blob_files = true;
    cf.min_blob_size = 4096;
    cf.enable_blob_garbage_collection = true;
  }
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = BlockCache(options, cache_holder);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;
  cf.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return cf;
}

rocksdb::WriteOptions WriteOptionsFor(Durability durability) {
  rocksdb::WriteOptions write;
  write.sync = durability == Durability::kSynced;
#ifdef ANABRANCH_BROKEN_NO_SYNC  // tests/crash/mutation_check.py shows that tests notice
  write.sync = false;
#endif
  write.protection_bytes_per_key = kProtectionBytes;
  return write;
}

}  // namespace anabranch

#include "statestore/search_index.h"

#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/embedding_table.h"
#include "statestore/search_words.h"
#include "statestore/sqlite.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

// Another number in the file: it is made anew.
constexpr int64_t kFormat = 2;
// Full text tables are made with their tenants: text_<number>, whose rowid is the doc.
constexpr char kSchema[] =
    "BEGIN;"
    "CREATE TABLE watermark(only INTEGER PRIMARY KEY CHECK (only = 0), commit_seq INTEGER);"
    "INSERT INTO watermark VALUES(0, 0);"
    "CREATE TABLE tenants(number INTEGER PRIMARY KEY, name TEXT UNIQUE);"
    "CREATE TABLE states(doc INTEGER PRIMARY KEY, tenant INTEGER, id TEXT, fingerprint TEXT,"
    " created INTEGER, etag INTEGER, labels BLOB, embedding BLOB, UNIQUE(tenant, id));"
    "PRAGMA user_version = 2;"
    "COMMIT;";

std::string EncodeLabels(const Labels& labels) {
  ByteWriter writer;
  writer.Varint(labels.size());
  for (const auto& [key, value] : labels) {
    writer.String(key);
    writer.String(value);
  }
  return std::move(writer).Take();
}

Labels DecodeLabels(absl::string_view bytes) {
  ByteReader reader(bytes);
  Labels labels;
  for (uint64_t left = reader.Count(2); left > 0 && reader.ok(); --left) {
    const absl::string_view key = reader.String();
    labels[std::string(key)] = std::string(reader.String());
  }
  return labels;
}

absl::string_view BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::vector<float> FloatsOf(absl::string_view bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

class SearchIndexImpl final : public SearchIndex {
 public:
  explicit SearchIndexImpl(std::string path) : path_(std::move(path)) {}
  // Opens the file; makes it anew if it is damaged or foreign.
  absl::Status Start();

  absl::Status Apply(const std::vector<IndexedState>& put, const std::vector<StateName>& remove,
                     uint64_t watermark) override;
  absl::Status Reset() override;
  uint64_t watermark() const override {
    absl::MutexLock lock(&mutex_);
    return watermark_;
  }
  std::optional<uint64_t> Etag(const StateName& state) const override;
  std::vector<StateName> States() const override;
  int64_t Count(const IndexFilter& filter) const override;
  absl::StatusOr<std::vector<IndexHit>> FindWords(const std::string& query,
                                                  const IndexFilter& filter, size_t limit) override;
  absl::StatusOr<int64_t> CountWith(const std::string& tenant, const std::string& word,
                                    int64_t at_most) override;
  std::vector<IndexHit> FindNearest(absl::Span<const float> query, const IndexFilter& filter,
                                    size_t limit) const override;
  absl::StatusOr<std::string> Snippet(const StateName& state, const std::string& query,
                                      int words) override;
  absl::StatusOr<std::string> Text(const StateName& state) override;

 private:
  using Key = std::pair<std::string, std::string>;  // tenant, id
  struct Entry {
    StateName name;
    std::string fingerprint;
    int64_t created = 0;  // nanoseconds
    uint64_t etag = 0;
    Labels labels;
  };

  // Removes the file and forgets what was in it.
  void Discard() ABSL_EXCLUSIVE_LOCKS_REQUIRED(reader_mutex_);
  absl::Status OpenFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(reader_mutex_);
  absl::Status LoadTenants();
  absl::Status LoadStates();
  absl::StatusOr<int64_t> TenantNumber(const std::string& tenant);
  absl::StatusOr<int64_t> PutOne(const IndexedState& state);
  absl::Status RemoveOne(const StateName& state);
  absl::Status WriteAll(const std::vector<IndexedState>& put, const std::vector<StateName>& remove,
                        uint64_t watermark, std::vector<int64_t>* docs);
  void Remember(int64_t doc, Entry entry, absl::Span<const float> embedding)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static bool Matches(const Entry& entry, const IndexFilter& filter);
  bool Wanted(int64_t doc, const IndexFilter& filter, std::string* id) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The rows of `table` that match the expression and are wanted.
  absl::StatusOr<std::vector<IndexHit>> Match(const std::string& table, const std::string& words,
                                              const IndexFilter& filter, size_t limit)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(reader_mutex_);
  // The state's full text table and row; empty name if it is not in the index.
  std::pair<std::string, int64_t> Find(const StateName& state) const ABSL_LOCKS_EXCLUDED(mutex_);
  std::string TextTable(const std::string& tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  // Of the one thread that applies. Tenants that its transaction made are not others' to see yet.
  std::unique_ptr<Sqlite> writer_;
  absl::flat_hash_map<std::string, int64_t> new_tenants_;
  absl::Mutex reader_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::unique_ptr<Sqlite> reader_ ABSL_GUARDED_BY(reader_mutex_);

  mutable absl::Mutex mutex_;
  uint64_t watermark_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<std::string, int64_t> tenants_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<int64_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Key, int64_t> docs_ ABSL_GUARDED_BY(mutex_);
  // By tenant and model.
  absl::flat_hash_map<Key, EmbeddingTable> embeddings_ ABSL_GUARDED_BY(mutex_);
};

absl::Status SearchIndexImpl::Start() {
  absl::MutexLock lock(&reader_mutex_);
  if (OpenFile().ok()) return absl::OkStatus();
  Discard();
  return OpenFile();
}

absl::Status SearchIndexImpl::Reset() {
  absl::MutexLock lock(&reader_mutex_);
  Discard();
  return OpenFile();
}

void SearchIndexImpl::Discard() {
  writer_.reset();
  reader_.reset();
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::error_code error;
    fs::remove(path_ + suffix, error);
  }
  absl::MutexLock lock(&mutex_);
  watermark_ = 0;
  tenants_.clear();
  entries_.clear();
  docs_.clear();
  embeddings_.clear();
}

absl::Status SearchIndexImpl::OpenFile() {
  std::error_code error;
  const bool is_new = !fs::exists(path_, error);
  ANABRANCH_ASSIGN_OR_RETURN(writer_, Sqlite::Open(path_));
  if (is_new) {
    ANABRANCH_RETURN_IF_ERROR(writer_->Execute(kSchema));
  } else {
    ANABRANCH_ASSIGN_OR_RETURN(SqliteStatement version, writer_->Prepare("PRAGMA user_version"));
    ANABRANCH_ASSIGN_OR_RETURN(const bool versioned, version.Step());
    if (!versioned || version.Int(0) != kFormat) return absl::DataLossError("another format");
    ANABRANCH_ASSIGN_OR_RETURN(SqliteStatement check, writer_->Prepare("PRAGMA quick_check(1)"));
    ANABRANCH_ASSIGN_OR_RETURN(const bool checked, check.Step());
    if (!checked || check.Bytes(0) != "ok") return absl::DataLossError("it is damaged");
  }
  ANABRANCH_ASSIGN_OR_RETURN(reader_, Sqlite::Open(path_));
  ANABRANCH_RETURN_IF_ERROR(LoadTenants());
  return LoadStates();
}

absl::Status SearchIndexImpl::LoadTenants() {
  absl::MutexLock lock(&mutex_);
  ANABRANCH_ASSIGN_OR_RETURN(SqliteStatement mark,
                             writer_->Prepare("SELECT commit_seq FROM watermark"));
  ANABRANCH_ASSIGN_OR_RETURN(const bool marked, mark.Step());
  if (!marked) return absl::DataLossError("it has no watermark");
  watermark_ = static_cast<uint64_t>(mark.Int(0));
  ANABRANCH_ASSIGN_OR_RETURN(SqliteStatement select,
                             writer_->Prepare("SELECT number, name FROM tenants"));
  while (true) {
    ANABRANCH_ASSIGN_OR_RETURN(const bool more, select.Step());
    if (!more) return absl::OkStatus();
    tenants_[std::string(select.Bytes(1))] = select.Int(0);
  }
}

absl::Status SearchIndexImpl::LoadStates() {
  ANABRANCH_ASSIGN_OR_RETURN(
      SqliteStatement select,
      writer_->Prepare("SELECT doc, name, id, fingerprint, created, etag, labels, embedding FROM"
                       " states JOIN tenants ON tenant = number"));
  absl::MutexLock lock(&mutex_);
  while (true) {
    ANABRANCH_ASSIGN_OR_RETURN(const bool more, select.Step());
    if (!more) return absl::OkStatus();
    Entry entry;
    entry.name = {std::string(select.Bytes(1)), std::string(select.Bytes(2))};
    entry.fingerprint = std::string(select.Bytes(3));
    entry.created = select.Int(4);
    entry.etag = static_cast<uint64_t>(select.Int(5));
    entry.labels = DecodeLabels(select.Bytes(6));
    Remember(select.Int(0), std::move(entry), FloatsOf(select.Bytes(7)));
  }
}

void SearchIndexImpl::Remember(int64_t doc, Entry entry, absl::Span<const float> embedding) {
  const Key key(entry.name.tenant, entry.name.id);
  embeddings_[Key(entry.name.tenant, entry.fingerprint)].Put(doc, embedding);
  docs_[key] = doc;
  entries_[doc] = std::move(entry);
}

void SearchIndexImpl::Forget(const Key& key) {
  const auto doc = docs_.find(key);
  if (doc == docs_.end()) return;
  const auto entry = entries_.find(doc->second);
  embeddings_[Key(key.first, entry->second.fingerprint)].Remove(doc->second);
  entries_.erase(entry);
  docs_.erase(doc);
}

absl::StatusOr<int64_t> SearchIndexImpl::TenantNumber(const std::string& tenant) {
  {
    absl::MutexLock lock(&mutex_);
    const auto found = tenants_.find(tenant);
    if (found != tenants_.end()) return found->second;
  }
  const auto made = new_tenants_.find(tenant);
  if (made != new_tenants_.end()) return made->second;
  ANABRANCH_ASSIGN_OR_RETURN(SqliteStatement insert,
                             writer_->Prepare("INSERT INTO tenants(name) VALUES(?)"));
  ANABRANCH_RETURN_IF_ERROR(insert.BindText(1, tenant).Step().status());
  const int64_t number = writer_->last_row();
  ANABRANCH_RETURN_IF_ERROR(writer_->Execute(
      absl::StrCat("CREATE VIRTUAL TABLE text_", number,
                   " USING fts5(text, tokenize = 'porter unicode61 remove_diacritics 2')")));
  new_tenants_[tenant] = number;
  return number;
}

absl::Status SearchIndexImpl::RemoveOne(const StateName& state) {
  const auto [table, doc] = Find(state);
  if (table.empty()) return absl::OkStatus();
  for (const std::string& sql : {absl::StrCat("DELETE FROM ", table, " WHERE rowid = ?"),
                                 std::string("DELETE FROM states WHERE doc = ?")}) {
    ANABRANCH_ASSIGN_OR_RETURN(SqliteStatement remove, writer_->Prepare(sql));
    ANABRANCH_RETURN_IF_ERROR(remove.Bind(1, doc).Step().status());
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SearchIndexImpl::PutOne(const IndexedState& state) {
  const StateRecord& record = state.record;
  ANABRANCH_RETURN_IF_ERROR(RemoveOne({record.tenant, record.id}));
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t tenant, TenantNumber(record.tenant));
  ANABRANCH_ASSIGN_OR_RETURN(
      SqliteStatement insert,
      writer_->Prepare("INSERT INTO states(tenant, id, fingerprint, created, etag, labels,"
                       " embedding) VALUES(?, ?, ?, ?, ?, ?, ?)"));
  insert.Bind(1, tenant).BindText(2, record.id).BindText(3, record.fingerprint);
  insert.Bind(4, absl::ToUnixNanos(record.created)).Bind(5, static_cast<int64_t>(record.etag));
  insert.BindBlob(6, EncodeLabels(record.labels)).BindBlob(7, BytesOf(state.embedding));
  ANABRANCH_RETURN_IF_ERROR(insert.Step().status());
  const int64_t doc = writer_->last_row();
  ANABRANCH_ASSIGN_OR_RETURN(
      SqliteStatement text,
      writer_->Prepare(absl::StrCat("INSERT INTO text_", tenant, "(rowid, text) VALUES(?, ?)")));
  ANABRANCH_RETURN_IF_ERROR(text.Bind(1, doc).BindText(2, state.text).Step().status());
  return doc;
}

absl::Status SearchIndexImpl::WriteAll(const std::vector<IndexedState>& put,
                                       const std::vector<StateName>& remove, uint64_t watermark,
                                       std::vector<int64_t>* docs) {
  ANABRANCH_RETURN_IF_ERROR(writer_->Execute("BEGIN IMMEDIATE"));
  for (const StateName& state : remove) ANABRANCH_RETURN_IF_ERROR(RemoveOne(state));
  for (const IndexedState& state : put) {
    ANABRANCH_ASSIGN_OR_RETURN(const int64_t doc, PutOne(state));
    docs->push_back(doc);
  }
  ANABRANCH_ASSIGN_OR_RETURN(SqliteStatement mark,
                             writer_->Prepare("UPDATE watermark SET commit_seq = ?"));
  ANABRANCH_RETURN_IF_ERROR(mark.Bind(1, static_cast<int64_t>(watermark)).Step().status());
  return writer_->Execute("COMMIT");
}

absl::Status SearchIndexImpl::Apply(const std::vector<IndexedState>& put,
                                    const std::vector<StateName>& remove, uint64_t watermark) {
  if (writer_ == nullptr) return absl::DataLossError("the search index could not be opened");
  std::vector<int64_t> docs;
  new_tenants_.clear();
  const absl::Status written = WriteAll(put, remove, watermark, &docs);
  if (!written.ok()) {
    writer_->Execute("ROLLBACK").IgnoreError();
    return written;
  }
  absl::MutexLock lock(&mutex_);
  tenants_.insert(new_tenants_.begin(), new_tenants_.end());
  for (const StateName& state : remove) Forget(Key(state.tenant, state.id));
  for (size_t i = 0; i < put.size(); ++i) {
    const StateRecord& record = put[i].record;
    Forget(Key(record.tenant, record.id));
    Remember(docs[i],
             Entry{{record.tenant, record.id},
                   record.fingerprint,
                   absl::ToUnixNanos(record.created),
                   record.etag,
                   record.labels},
             put[i].embedding);
  }
  watermark_ = watermark;
  return absl::OkStatus();
}

std::optional<uint64_t> SearchIndexImpl::Etag(const StateName& state) const {
  absl::MutexLock lock(&mutex_);
  const auto doc = docs_.find(Key(state.tenant, state.id));
  if (doc == docs_.end()) return std::nullopt;
  return entries_.at(doc->second).etag;
}

std::vector<StateName> SearchIndexImpl::States() const {
  absl::MutexLock lock(&mutex_);
  std::vector<StateName> states;
  states.reserve(entries_.size());
  for (const auto& [doc, entry] : entries_) states.push_back(entry.name);
  return states;
}

bool SearchIndexImpl::Matches(const Entry& entry, const IndexFilter& filter) {
  const StateFilter& state = filter.state;
  if (entry.name.tenant != filter.tenant || entry.name.id == filter.not_id) return false;
  if (!state.fingerprint.empty() && entry.fingerprint != state.fingerprint) return false;
  const absl::Time created = absl::FromUnixNanos(entry.created);
  if (created < state.created_after || created >= state.created_before) return false;
  for (const auto& [key, value] : state.labels) {
    const auto label = entry.labels.find(key);
    if (label == entry.labels.end() || label->second != value) return false;
  }
  return filter.ids == nullptr || filter.ids->contains(entry.name.id);
}

int64_t SearchIndexImpl::Count(const IndexFilter& filter) const {
  absl::MutexLock lock(&mutex_);
  int64_t count = 0;
  for (const auto& [doc, entry] : entries_) count += Matches(entry, filter) ? 1 : 0;
  return count;
}

bool SearchIndexImpl::Wanted(int64_t doc, const IndexFilter& filter, std::string* id) const {
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(doc);
  if (entry == entries_.end() || !Matches(entry->second, filter)) return false;
  *id = entry->second.name.id;
  return true;
}

std::string SearchIndexImpl::TextTable(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? "" : absl::StrCat("text_", found->second);
}

std::pair<std::string, int64_t> SearchIndexImpl::Find(const StateName& state) const {
  absl::MutexLock lock(&mutex_);
  const auto doc = docs_.find(Key(state.tenant, state.id));
  if (doc == docs_.end()) return {"", 0};
  return {TextTable(state.tenant), doc->second};
}

absl::StatusOr<std::vector<IndexHit>> SearchIndexImpl::FindWords(const std::string& query,
                                                                 const IndexFilter& filter,
                                                                 size_t limit) {
  const std::string words = AnyWord(query);
  absl::MutexLock lock(&reader_mutex_);
  std::string table;
  {
    absl::MutexLock state_lock(&mutex_);
    table = TextTable(filter.tenant);
  }
  if (words.empty() || table.empty() || reader_ == nullptr) return std::vector<IndexHit>();
  reader_->StopWhen(filter.stop);
  absl::StatusOr<std::vector<IndexHit>> hits = Match(table, words, filter, limit);
  reader_->StopWhen(nullptr);
  return hits;
}

absl::StatusOr<std::vector<IndexHit>> SearchIndexImpl::Match(const std::string& table,
                                                             const std::string& words,
                                                             const IndexFilter& filter,
                                                             size_t limit) {
  std::vector<IndexHit> hits;
  ANABRANCH_ASSIGN_OR_RETURN(
      SqliteStatement select,
      reader_->Prepare(absl::StrCat("SELECT rowid, -rank FROM ", table, " WHERE ", table,
                                    " MATCH ? ORDER BY rank, rowid DESC")));
  select.BindText(1, words);
  while (hits.size() < limit) {
    ANABRANCH_ASSIGN_OR_RETURN(const bool more, select.Step());
    if (!more) break;
    IndexHit hit;
    hit.score = select.Real(1);
    if (Wanted(select.Int(0), filter, &hit.id)) hits.push_back(std::move(hit));
  }
  return hits;
}

absl::StatusOr<int64_t> SearchIndexImpl::CountWith(const std::string& tenant,
                                                   const std::string& word, int64_t at_most) {
  const std::string expression = AnyWord(word);
  absl::MutexLock lock(&reader_mutex_);
  std::string table;
  {
    absl::MutexLock state_lock(&mutex_);
    table = TextTable(tenant);
  }
  if (expression.empty() || table.empty() || reader_ == nullptr) return 0;
  ANABRANCH_ASSIGN_OR_RETURN(
      SqliteStatement select,
      reader_->Prepare(absl::StrCat("SELECT count(*) FROM (SELECT rowid FROM ", table, " WHERE ",
                                    table, " MATCH ? LIMIT ?)")));
  ANABRANCH_RETURN_IF_ERROR(select.BindText(1, expression).Bind(2, at_most).Step().status());
  return select.Int(0);
}

std::vector<IndexHit> SearchIndexImpl::FindNearest(absl::Span<const float> query,
                                                   const IndexFilter& filter, size_t limit) const {
  absl::MutexLock lock(&mutex_);
  std::vector<IndexHit> hits;
  const auto table = embeddings_.find(Key(filter.tenant, filter.state.fingerprint));
  if (table == embeddings_.end()) return hits;
  const auto wanted = [&](int64_t doc) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Matches(entries_.at(doc), filter);
  };
  for (const auto& [cosine, doc] : table->second.Nearest(query, limit, wanted)) {
    hits.push_back({entries_.at(doc).name.id, cosine});
  }
  return hits;
}

absl::StatusOr<std::string> SearchIndexImpl::Snippet(const StateName& state,
                                                     const std::string& query, int words) {
  const auto [table, doc] = Find(state);
  const std::string expression = AnyWord(query);
  absl::MutexLock lock(&reader_mutex_);
  if (table.empty() || expression.empty() || reader_ == nullptr) return std::string();
  ANABRANCH_ASSIGN_OR_RETURN(
      SqliteStatement select,
      reader_->Prepare(absl::StrCat("SELECT snippet(", table, ", 0, '', '', '…', ", words,
                                    ") FROM ", table, " WHERE ", table, " MATCH ? AND rowid = ?")));
  ANABRANCH_ASSIGN_OR_RETURN(const bool found, select.BindText(1, expression).Bind(2, doc).Step());
  return found ? std::string(select.Bytes(0)) : std::string();
}

absl::StatusOr<std::string> SearchIndexImpl::Text(const StateName& state) {
  const auto [table, doc] = Find(state);
  absl::MutexLock lock(&reader_mutex_);
  if (table.empty() || reader_ == nullptr) return std::string();
  ANABRANCH_ASSIGN_OR_RETURN(
      SqliteStatement select,
      reader_->Prepare(absl::StrCat("SELECT text FROM ", table, " WHERE rowid = ?")));
  ANABRANCH_ASSIGN_OR_RETURN(const bool found, select.Bind(1, doc).Step());
  return found ? std::string(select.Bytes(0)) : std::string();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SearchIndex>> SearchIndex::Open(const std::string& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot create the folder ", directory, ": ", error.message()));
  }
  auto index = std::make_unique<SearchIndexImpl>(absl::StrCat(directory, "/search.sqlite"));
  ANABRANCH_RETURN_IF_ERROR(index->Start());
  return index;
}

}  // namespace anabranch

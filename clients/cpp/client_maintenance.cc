// Bundles, backup and verification: the calls of Client that move whole states and libraries.
#include <zlib.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cpp/client.h"
#include "clients/cpp/client_stubs.h"

namespace anabranch {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

uint32_t Crc32(const std::string& bytes) {
  return static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

absl::Status EndedEarly(absl::string_view call) {
  return absl::InternalError(absl::StrCat("the server ended ", call, " without its final answer"));
}

// Hands every chunk to `sink`; `request` is moved on, so that a repeat goes on behind the last.
absl::StatusOr<v1::BundleInfo> ExportOnce(v1::States::Stub& stub, grpc::ClientContext& context,
                                          v1::ExportRequest& request, const ChunkSink& sink,
                                          absl::Status* sunk) {
  std::unique_ptr<grpc::ClientReader<v1::ExportResponse>> stream = stub.Export(&context, request);
  v1::BundleInfo bundle;
  v1::ExportResponse response;
  absl::Status wrong;
  while (wrong.ok() && stream->Read(&response)) {
    if (response.has_bundle()) bundle = response.bundle();
    const v1::BundleChunk& chunk = response.chunk();
    if (chunk.offset() != request.offset() || chunk.crc32() != Crc32(chunk.data())) {
      wrong = absl::UnavailableError(
          absl::StrCat("the chunk at byte ", request.offset(), " was damaged on its way"));
      break;
    }
    if (!chunk.data().empty()) *sunk = sink(bundle, chunk.offset(), chunk.data());
    wrong = *sunk;
    request.set_offset(request.offset() + static_cast<int64_t>(chunk.data().size()));
    request.set_bundle_id(bundle.bundle_id());
  }
  if (!wrong.ok()) {
    context.TryCancel();
    stream->Finish();
    return wrong;
  }
  const absl::Status status = FromGrpcStatus(stream->Finish());
  if (!status.ok()) return status;
  if (request.offset() == bundle.size_bytes()) return bundle;
  return EndedEarly("Export");
}

using ImportStream = grpc::ClientReaderWriter<v1::ImportRequest, v1::ImportProgress>;

// Sends the bundle from `offset` on. A failed write means that the call has ended; its status says
// why. A source's error is returned.
absl::Status SendFrom(ImportStream& stream, int64_t offset, const ChunkSource& source) {
  for (;;) {
    absl::StatusOr<std::string> bytes = source(offset, kChunkBytes);
    if (!bytes.ok()) return bytes.status();
    if (bytes->empty()) break;
    v1::ImportRequest request;
    v1::BundleChunk& chunk = *request.mutable_chunk();
    chunk.set_offset(offset);
    chunk.set_crc32(Crc32(*bytes));
    offset += static_cast<int64_t>(bytes->size());
    chunk.set_data(*std::move(bytes));
    if (!stream.Write(request)) return absl::OkStatus();
  }
  stream.WritesDone();
  return absl::OkStatus();
}

absl::StatusOr<v1::ImportResult> ImportOnce(v1::States::Stub& stub, grpc::ClientContext& context,
                                            const v1::ImportStart& start, const ChunkSource& source,
                                            const ImportCallback& on_progress) {
  std::unique_ptr<ImportStream> stream = stub.Import(&context);
  v1::ImportRequest first;
  *first.mutable_start() = start;
  v1::ImportProgress progress;
  if (!stream->Write(first) || !stream->Read(&progress)) {
    const absl::Status status = FromGrpcStatus(stream->Finish());
    return status.ok() ? EndedEarly("Import") : status;
  }
  if (on_progress) on_progress(progress);
  std::optional<v1::ImportResult> result;
  std::thread reader([&] {
    v1::ImportProgress next;
    while (stream->Read(&next)) {
      if (next.has_result()) result = next.result();
      if (on_progress) on_progress(next);
    }
  });
  const absl::Status sent = SendFrom(*stream, progress.received_bytes(), source);
  if (!sent.ok()) context.TryCancel();
  reader.join();
  const absl::Status status = FromGrpcStatus(stream->Finish());
  if (!sent.ok()) return sent;
  if (!status.ok()) return status;
  if (!result.has_value()) return EndedEarly("Import");
  return *std::move(result);
}

// A stream of messages of which the last one matters too.
template <typename Message, typename Start>
absl::StatusOr<Message> ReadAll(grpc::ClientContext& context, Start start,
                                const std::function<void(const Message&)>& on_message,
                                absl::string_view call) {
  auto stream = start(&context);
  std::optional<Message> last;
  Message message;
  while (stream->Read(&message)) {
    if (on_message) on_message(message);
    last = std::move(message);
    message.Clear();
  }
  const absl::Status status = FromGrpcStatus(stream->Finish());
  if (!status.ok()) return status;
  if (!last.has_value()) return EndedEarly(call);
  return *std::move(last);
}

CallLimits LongLimits(Cancellation* cancel) {
  return {.deadline = absl::Now() + kMaintenanceTimeout, .max_attempts = 1, .cancel = cancel};
}

}  // namespace

absl::StatusOr<v1::BundleInfo> Client::Export(v1::ExportRequest request, const ChunkSink& sink,
                                              Cancellation* cancel) {
  absl::Status sunk;
  return CallWithRepeats<absl::StatusOr<v1::BundleInfo>>(
      ModelLimits(options_, cancel),
      [&](grpc::ClientContext& context) {
        return ExportOnce(*stubs_->states, context, request, sink, &sunk);
      },
      [&] { return sunk.ok(); });
}

absl::StatusOr<v1::ImportResult> Client::Import(const v1::ImportStart& start,
                                                const ChunkSource& source,
                                                const ImportCallback& on_progress,
                                                Cancellation* cancel) {
  return CallWithRepeats<absl::StatusOr<v1::ImportResult>>(
      ModelLimits(options_, cancel), [&](grpc::ClientContext& context) {
        return ImportOnce(*stubs_->states, context, start, source, on_progress);
      });
}

absl::StatusOr<v1::Backup> Client::CreateBackup(const v1::CreateBackupRequest& request,
                                                const BackupCallback& on_progress,
                                                Cancellation* cancel) {
  const auto last = CallWithRepeats<absl::StatusOr<v1::BackupProgress>>(
      LongLimits(cancel), [&](grpc::ClientContext& context) {
        return ReadAll<v1::BackupProgress>(
            context,
            [&](grpc::ClientContext* each) { return stubs_->admin->CreateBackup(each, request); },
            on_progress, "CreateBackup");
      });
  if (!last.ok()) return last.status();
  if (!last->has_backup()) return EndedEarly("CreateBackup");
  return last->backup();
}

absl::StatusOr<std::vector<v1::Backup>> Client::ListBackups(const std::string& directory) {
  v1::ListBackupsRequest request;
  request.set_directory(directory);
  request.set_page_size(1000);
  std::vector<v1::Backup> all;
  for (;;) {
    const auto page =
        CallUnary(QuickLimits(options_), *stubs_->admin, &v1::Admin::Stub::ListBackups, request);
    if (!page.ok()) return page.status();
    all.insert(all.end(), page->backups().begin(), page->backups().end());
    if (page->next_page_token().empty()) return all;
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<v1::ScrubStatus> Client::Verify(const v1::VerifyRequest& request,
                                               const VerifyCallback& on_progress,
                                               Cancellation* cancel) {
  const auto last = CallWithRepeats<absl::StatusOr<v1::VerifyProgress>>(
      LongLimits(cancel), [&](grpc::ClientContext& context) {
        return ReadAll<v1::VerifyProgress>(
            context,
            [&](grpc::ClientContext* each) { return stubs_->admin->Verify(each, request); },
            on_progress, "Verify");
      });
  if (!last.ok()) return last.status();
  if (!last->done()) return EndedEarly("Verify");
  return last->status();
}

}  // namespace anabranch

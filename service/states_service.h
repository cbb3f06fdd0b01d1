// States as the API defines them: the library, without the model. Each method is its handler in
// library_handlers.h, run on the worker pool.
#pragma once

#include "anabranch/v1/states.grpc.pb.h"
#include "service/export_stream.h"
#include "service/import_reactor.h"
#include "service/service_context.h"

namespace anabranch {

class StatesService final : public v1::States::CallbackService {
 public:
  explicit StatesService(ServiceContext* service) : service_(service) {}

  // States: what was read.
  grpc::ServerUnaryReactor* GetState(grpc::CallbackServerContext* context,
                                     const v1::GetStateRequest* request,
                                     v1::State* response) override;
  // Pages.
  grpc::ServerUnaryReactor* ListStates(grpc::CallbackServerContext* context,
                                       const v1::ListStatesRequest* request,
                                       v1::ListStatesResponse* response) override;
  // Only labels, expiry and pin can change.
  grpc::ServerUnaryReactor* UpdateState(grpc::CallbackServerContext* context,
                                        const v1::UpdateStateRequest* request,
                                        v1::State* response) override;
  // Refused while something needs the state.
  grpc::ServerUnaryReactor* DeleteState(grpc::CallbackServerContext* context,
                                        const v1::DeleteStateRequest* request,
                                        v1::DeleteStateResponse* response) override;
  // Keeps a state in another codec.
  grpc::ServerUnaryReactor* RecodeState(grpc::CallbackServerContext* context,
                                        const v1::RecodeStateRequest* request,
                                        v1::RecodeStateResponse* response) override;
  // What led to a state, and what it has read.
  grpc::ServerUnaryReactor* GetLineage(grpc::CallbackServerContext* context,
                                       const v1::GetLineageRequest* request,
                                       v1::GetLineageResponse* response) override;
  grpc::ServerUnaryReactor* GetLog(grpc::CallbackServerContext* context,
                                   const v1::GetLogRequest* request,
                                   v1::GetLogResponse* response) override;
  // For drawing: who goes on from whom, and what is in a state.
  grpc::ServerUnaryReactor* GetGraph(grpc::CallbackServerContext* context,
                                     const v1::GetGraphRequest* request,
                                     v1::GetGraphResponse* response) override;
  grpc::ServerUnaryReactor* GetStateStats(grpc::CallbackServerContext* context,
                                          const v1::GetStateStatsRequest* request,
                                          v1::StateStats* response) override;
  grpc::ServerUnaryReactor* GetTokens(grpc::CallbackServerContext* context,
                                      const v1::GetTokensRequest* request,
                                      v1::GetTokensResponse* response) override;
  // Computes a state out of several.
  grpc::ServerUnaryReactor* Merge(grpc::CallbackServerContext* context,
                                  const v1::MergeRequest* request,
                                  v1::MergeResponse* response) override;
  // Finds states by what they know.
  grpc::ServerUnaryReactor* Search(grpc::CallbackServerContext* context,
                                   const v1::SearchRequest* request,
                                   v1::SearchResponse* response) override;
  // Take states of one lineage apart: a span alone, all but a span, and all but faded. Each gives a
  // state of its own kind.
  grpc::ServerUnaryReactor* ExtractSpan(grpc::CallbackServerContext* context,
                                        const v1::SpanRequest* request,
                                        v1::ComputedState* response) override;
  grpc::ServerUnaryReactor* Forget(grpc::CallbackServerContext* context,
                                   const v1::SpanRequest* request,
                                   v1::ComputedState* response) override;
  grpc::ServerUnaryReactor* Decay(grpc::CallbackServerContext* context,
                                  const v1::DecayRequest* request,
                                  v1::ComputedState* response) override;
  // Compares two, tensor by tensor.
  grpc::ServerUnaryReactor* Diff(grpc::CallbackServerContext* context,
                                 const v1::DiffRequest* request,
                                 v1::DiffResponse* response) override;
  // States as a portable file, and back.
  grpc::ServerWriteReactor<v1::ExportResponse>* Export(grpc::CallbackServerContext* context,
                                                       const v1::ExportRequest* request) override {
    return new ExportStream(service_, context, request);
  }
  grpc::ServerBidiReactor<v1::ImportRequest, v1::ImportProgress>* Import(
      grpc::CallbackServerContext* context) override {
    return new ImportReactor(service_, context);
  }
  // Refs: names of states.
  grpc::ServerUnaryReactor* GetRef(grpc::CallbackServerContext* context,
                                   const v1::GetRefRequest* request, v1::Ref* response) override;
  grpc::ServerUnaryReactor* ListRefs(grpc::CallbackServerContext* context,
                                     const v1::ListRefsRequest* request,
                                     v1::ListRefsResponse* response) override;
  // Compare-and-set if the request says what it expects.
  grpc::ServerUnaryReactor* SetRef(grpc::CallbackServerContext* context,
                                   const v1::SetRefRequest* request, v1::Ref* response) override;
  grpc::ServerUnaryReactor* DeleteRef(grpc::CallbackServerContext* context,
                                      const v1::DeleteRefRequest* request,
                                      v1::DeleteRefResponse* response) override;

 private:
  ServiceContext* const service_;  // outlives this
};

}  // namespace anabranch
